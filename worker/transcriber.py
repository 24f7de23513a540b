"""The engine's port: samples in, segments out. Adapters live in worker/engine/, one file each; ENGINE names one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.domain.job_options import JobOptions
from core.domain.transcript import Segment

Samples = NDArray[np.float32]
"""Mono, 16 kHz, -1..1, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Options:
    """What one call asks of the engine.

    language: `en`, `vi` or `auto` (then the likeliest of `languages` is taken and reported). job: what the submit asked
    for. decoders: 1 after an out-of-memory retry.
    """

    language: str
    languages: tuple[str, ...] = ("en", "vi")
    job: JobOptions = field(default_factory=JobOptions)
    decoders: int | None = None


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """Segments in chunk time (seconds from the first sample); encodes: how often the encoder ran; cpu_seconds of the
    engine's own call, decoding audio to tokens and nothing else."""

    segments: tuple[Segment, ...]
    language: str
    encodes: int = 1
    cpu_seconds: float = 0.0


class Engine(Protocol):
    """Lives in a child process and holds one model. Not thread-safe."""

    def transcribe(self, samples: Samples, options: Options) -> EngineOutput:
        """Raises UnsupportedLanguageError, OutOfMemoryError, WhisperCrashError."""
        ...


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything a child needs to build its engine; picklable."""

    adapter: str
    model_path: Path
    threads: int = 1
