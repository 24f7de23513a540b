"""Trial of the engine: `python -m internal.cli.doctor.engine_child TASK` prints its version and speed as JSON.

TASK is the JSON list of engine, model file and languages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from core.error_base import SttError
from core.errors import SettingsError
from core.machine import usable_cores
from worker.engine import build, engine_version
from worker.ffmpeg import program
from worker.transcriber import Call, EngineSpec, Options

ROOT = Path(__file__).resolve().parents[3]
RECORDING = ROOT / "assets" / "samples" / "hello.en.mp3"
RATE = 16_000


def main(task: str) -> int:
    """Return the exit status; the reason for one other than 0 is the last line of standard error."""
    engine, model, languages = json.loads(task)
    samples = np.frombuffer(_decoded(), "<i2").astype(np.float32) / np.float32(32768)
    start = time.perf_counter()
    try:
        loaded = build(EngineSpec(engine, Path(model)))
        options = Options(languages[0], tuple(languages))
        [outcome] = loaded.transcribe([Call(samples, options)], threads=usable_cores())
        if isinstance(outcome, SttError):
            raise outcome
    except (SttError, SettingsError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    seconds = time.perf_counter() - start
    report = {"version": engine_version(engine), "audio": len(samples) / RATE, "seconds": seconds}
    sys.stdout.write(f"{json.dumps(report)}\n")
    return 0


def _decoded() -> bytes:
    """Return the sample recording; in an installed package, which has none, a second of silence."""
    if not RECORDING.exists():
        return bytes(2 * RATE)
    command = [program(), "-nostdin", "-i", str(RECORDING), "-f", "s16le", "-ac", "1", "-ar", str(RATE), "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
