"""An engine that takes time without using the CPU, for tests of its surroundings."""

from __future__ import annotations

import time
from collections.abc import Sequence

from core.domain.transcript import Segment
from core.errors import SttError
from worker.transcriber import Call, EngineOutput, EngineSpec, Options, Samples, transcribe_each

SECONDS = 0.25


class SlowEngine:
    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        return transcribe_each(calls, self._transcribe)

    def _transcribe(self, samples: Samples, options: Options) -> EngineOutput:
        time.sleep(SECONDS)
        return EngineOutput((Segment(0.0, 1.0, "something was said", 1.0),), "en")


def load(_spec: EngineSpec) -> SlowEngine:
    return SlowEngine()
