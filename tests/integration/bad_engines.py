"""Engines that fail on demand, as selected by the first sample; a real engine cannot be made to."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence

from core.domain.transcript import Segment
from core.errors import SttError
from worker.transcriber import Call, EngineOutput, EngineSpec, Options, Samples, transcribe_each

FINE, CRASH, HANG, EXIT, KILL, MEMORY = range(6)


class BadEngine:
    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        return transcribe_each(calls, self._transcribe)

    def _transcribe(self, samples: Samples, options: Options) -> EngineOutput:
        command = round(float(samples[0]) * 32768) if len(samples) else FINE
        if command == CRASH:
            ctypes.string_at(0)
        elif command == HANG:
            time.sleep(600)
        elif command == EXIT:
            os._exit(3)
        elif command == KILL:
            os.kill(os.getpid(), 9)
        elif command == MEMORY:
            raise MemoryError
        text = f"{os.getpid()} {len(samples)} {options.decoders}"
        return EngineOutput((Segment(0.0, 1.0, text, 1.0),), "en")


def load(_spec: EngineSpec) -> BadEngine:
    return BadEngine()
