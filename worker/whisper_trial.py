"""Trial of a build of whisper.cpp: `python -m worker.whisper_trial FOLDER` exits with 0 if it hears the right words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from core.errors import SttError
from worker.engine.whisper_cpp import WhisperCpp
from worker.ffmpeg import program
from worker.transcriber import Call, EngineSpec, Options
from worker.whisper_builds import Build

ROOT = Path(__file__).resolve().parents[1]
MODELS = (ROOT / "assets" / "model" / "ggml-demo-q5_0.bin", ROOT / "core" / "demo_model" / "ggml-demo-q5_0.bin")
RECORDING = ROOT / "assets" / "samples" / "hello.en.mp3"
WORDS = "where is the new contract"
"""Words of the recording. An installed package has no recording; then a second of silence has to have no words."""


def main(folder: Path) -> int:
    """Return the exit status: 0 if the build in the folder works."""
    build = Build.read(folder)
    model = next((path for path in MODELS if path.exists()), None)
    if build is None or model is None:
        return 2
    engine = WhisperCpp(EngineSpec("whisper_cpp", model), build, folder)
    pcm = _decode(RECORDING) if RECORDING.exists() else bytes(32_000)
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
    [output] = engine.transcribe([Call(samples, Options("en"))], threads=1)
    if isinstance(output, SttError):
        return 3
    text = " ".join(segment.text for segment in output.segments).lower()
    heard = WORDS in re.sub(r"[^\w\s]", "", text) if RECORDING.exists() else not text
    return 0 if heard else 1


def _decode(recording: Path) -> bytes:
    command = [program(), "-nostdin", "-i", str(recording), "-f", "s16le", "-ac", "1", "-ar", "16000", "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
