"""An engine that transcribes a chunk only once the test allows it, and whose text tries to be markup."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from core.domain.transcript import Segment
from core.errors import SttError
from worker.transcriber import Call, EngineOutput, EngineSpec, Options, Samples, transcribe_each

HOSTILE = "<img src=x onerror=alert(1)> {{7*7}} ]]> \u202e said"
"""Text of every segment unless the test gives another; the engine is unsure of it."""
PACE = "BROWSER_PACE"
"""Environment variable with the path of a file: its number of bytes is the number of chunks allowed so far."""


class PacedEngine:
    """Counts its chunks in a file, since a service has several engine processes."""

    def __init__(self, pace: Path) -> None:
        self._allowed, self._taken, self._text = pace, pace.with_suffix(".taken"), pace.with_suffix(".text")

    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        return transcribe_each(calls, self._transcribe)

    def _transcribe(self, samples: Samples, options: Options) -> EngineOutput:
        with self._taken.open("ab") as taken:
            taken.write(b".")
            number = taken.tell()
        while self._allowed.stat().st_size < number:
            time.sleep(0.05)
        text = self._text.read_text() if self._text.exists() else HOSTILE
        return EngineOutput((Segment(0.0, 1.0, text, 0.4),), "en")


def load(_spec: EngineSpec) -> PacedEngine:
    return PacedEngine(Path(os.environ[PACE]))
