"""An engine that takes time without using the CPU, for tests of its surroundings."""

from __future__ import annotations

import time

from core.domain.transcript import Segment
from worker.transcriber import EngineOutput, EngineSpec, Options, Samples

SECONDS = 0.25


class SlowEngine:
    def transcribe(self, samples: Samples, options: Options) -> EngineOutput:
        time.sleep(SECONDS)
        return EngineOutput((Segment(0.0, 1.0, "something was said", 1.0),), "en")


def load(_spec: EngineSpec) -> SlowEngine:
    return SlowEngine()
