"""An engine that detects Vietnamese in all audio and returns the requested language as its text."""

from __future__ import annotations

from collections.abc import Sequence

from core.domain.job import AUTO
from core.domain.transcript import Segment
from core.errors import SttError
from worker.transcriber import Call, EngineOutput, EngineSpec, Options, Samples, transcribe_each

DETECTED = "vi"


class DetectingEngine:
    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        return transcribe_each(calls, self._transcribe)

    def _transcribe(self, _samples: Samples, options: Options) -> EngineOutput:
        language = DETECTED if options.language == AUTO else options.language
        return EngineOutput((Segment(0.0, 1.0, options.language, 1.0),), language)


def load(_spec: EngineSpec) -> DetectingEngine:
    return DetectingEngine()
