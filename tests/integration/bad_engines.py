"""Engines that fail on demand, as selected by the first sample; a real engine cannot be made to.

The text of an output is the process id and the numbers of samples, decoders, calls and threads.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from core.domain.transcript import Segment
from core.errors import OutOfMemoryError, SttError, WhisperCrashError
from worker.transcriber import Call, EngineOutput, EngineSpec, Options, Samples, transcribe_each

FINE, CRASH, HANG, EXIT, KILL, MEMORY, GATE, CROWDED, SHORT = range(9)
"""GATE: wait until the file named by the prompt exists; CROWDED: no memory for a batch; SHORT: too few outputs."""
DEATHS = [(CRASH, WhisperCrashError), (EXIT, WhisperCrashError), (KILL, OutOfMemoryError), (MEMORY, OutOfMemoryError)]
"""The commands that end the engine's process, each with the error of the call."""


class BadEngine:
    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        commands = [command_of(call.samples) for call in calls]
        if CROWDED in commands and len(calls) > 1:
            raise MemoryError
        outputs = transcribe_each(calls, partial(self._transcribe, f"{len(calls)} {threads}"))
        return outputs[: -1 if SHORT in commands else None]

    def _transcribe(self, circumstances: str, samples: Samples, options: Options) -> EngineOutput:
        command = command_of(samples)
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
        elif command == GATE:
            while not Path(options.job.prompt).exists():
                time.sleep(0.005)
        text = f"{os.getpid()} {len(samples)} {options.decoders} {circumstances}"
        return EngineOutput((Segment(0.0, 1.0, text, 1.0),), "en")


def command_of(samples: Samples) -> int:
    return round(float(samples[0]) * 32768) if len(samples) else FINE


def load(_spec: EngineSpec) -> BadEngine:
    return BadEngine()
