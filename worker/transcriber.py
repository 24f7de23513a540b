"""The port of the engine. Adapters are modules in worker/engine/, selected by ENGINE."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.domain.job_options import JobOptions
from core.domain.transcript import Segment

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


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """Output of one call.

    segments: times in seconds from the first sample. encodes: number of encoder runs. cpu_seconds: CPU time of the
    transcription itself.
    """

    segments: tuple[Segment, ...]
    language: str
    encodes: int = 1
    cpu_seconds: float = 0.0


class Engine(Protocol):
    """An engine in a child process, with one loaded model. Not thread-safe."""

    def transcribe(self, samples: Samples, options: Options) -> EngineOutput:
        """Transcribe the samples. Raises UnsupportedLanguageError, OutOfMemoryError, WhisperCrashError."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Parameters of an engine. adapter: as ENGINE; threads: per call. Picklable."""

    adapter: str
    model_path: Path
    threads: int = 1
