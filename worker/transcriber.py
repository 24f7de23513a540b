"""The port of the engine. Adapters are modules in worker/engine/, selected by ENGINE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.domain.job_options import JobOptions
from core.domain.transcript import Segment
from core.errors import OutOfMemoryError, SttError

Samples = NDArray[np.float32]
"""Samples of mono audio at 16 kHz, -1..1, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one call.

    language: a code such as `en`, or `auto` for the most likely one of `languages`. job: options of the job. decoders:
    None for the engine's default; 1 in a retry after out of memory.
    """

    language: str
    languages: tuple[str, ...] = ("en", "vi")
    job: JobOptions = field(default_factory=JobOptions)
    decoders: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One chunk to transcribe."""

    samples: Samples
    options: Options


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """Output of one call.

    segments: times in seconds from the first sample. encodes: number of encoder runs. cpu_seconds: CPU time of the
    transcription itself; of a batch, this call's share. engine: its description, added by the pool.
    """

    segments: tuple[Segment, ...]
    language: str
    encodes: int = 1
    cpu_seconds: float = 0.0
    engine: str = ""


class Engine(Protocol):
    """An engine in a child process, with one loaded model. Not thread-safe.

    Its module has a function `load(spec: EngineSpec) -> Engine`. If it transcribes several calls faster together than
    one after the other, it also has an integer BATCH_SIZE: the largest useful number of calls.
    """

    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        """Transcribe 1 to BATCH_SIZE calls with `threads` threads in total; return an output or error for each.

        `threads` takes few values, so that an engine that compiles a model for a number of threads can keep its forms.
        Errors of a call: UnsupportedLanguageError, OutOfMemoryError, WhisperCrashError. If it raises instead, or its
        process dies, calls that ran together are run again one by one.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Parameters of an engine. adapter: as ENGINE; build: one of the adapter's, if it has several. Picklable."""

    adapter: str
    model_path: Path
    build: str = ""


def transcribe_each(
    calls: Sequence[Call], transcribe: Callable[[Samples, Options], EngineOutput]
) -> list[EngineOutput | SttError]:
    """Transcribe the calls one after the other, for engines without batches."""
    outputs: list[EngineOutput | SttError] = []
    for call in calls:
        try:
            outputs.append(transcribe(call.samples, call.options))
        except SttError as error:
            outputs.append(error)
        except MemoryError:
            outputs.append(OutOfMemoryError())
    return outputs
