"""Engines for tests of the trial; the build names the behaviour."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

from core.bundled import sample
from core.domain.transcript import Segment
from core.errors import SttError
from worker.transcriber import Call, EngineOutput, EngineSpec


class TrialEngine:
    def __init__(self, behaviour: str) -> None:
        self._behaviour = behaviour

    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        text = sample()[1]
        match self._behaviour:
            case "illegal":
                os.kill(os.getpid(), signal.SIGILL)
            case "memory":
                bytearray(1 << 50)
            case "hangs":
                time.sleep(600)
            case "empty":
                text = ""
            case "other":
                text = "entirely other words"
            case "slow":
                end = time.process_time() + 0.2
                while time.process_time() < end:
                    pass
        return [EngineOutput((Segment(0.0, 1.0, text, 1.0),), "en") for _ in calls]


def load(spec: EngineSpec) -> TrialEngine:
    """Load the engine whose behaviour the build names."""
    return TrialEngine(spec.build)
