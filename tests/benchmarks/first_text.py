"""Time from the submit of a three-hour recording to the commit of its first text, with and without instalments.

`python -m tests.benchmarks first_text`. The engine does no work, so this is the time that precedes it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.scaling import cut
from tests.benchmarks.table import Row
from tests.e2e.service import ROOT
from tests.speech import encode, recording

HOURS = 3
RUNS = 3


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ten_minutes = encode(recording("en", 170, seed=77)[0][: 600 * 16_000], folder / "ten-minutes.mp3")
        file = cut(ten_minutes, folder, HOURS * 3600)
        pairs = [(measure(folder, file, "instalments"), measure(folder, file, "whole")) for _ in range(RUNS)]
    first, first_whole, end, end_whole = (
        statistics.median(pair[side][figure] for pair in pairs) for figure in (0, 1) for side in (0, 1)
    )
    return [
        Row(
            f"time to first text of a {HOURS}-hour recording, engine time excluded",
            f"{first:.2f} s",
            f"planned as a whole: {first_whole:.2f} s; to COMPLETED {end:.1f} s and {end_whole:.1f} s",
            "",
        )
    ]


def measure(folder: Path, file: Path, planning: str) -> tuple[float, float]:
    """Return the seconds to the first text, and to COMPLETED."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        call = [sys.executable, "-m", "tests.benchmarks.first_text_run", data, str(file), planning]
        printed = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    first, end = printed.splitlines()[-1].split()
    return float(first), float(end)
