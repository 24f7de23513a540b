"""Chunking: one strategy a file, named by CHUNK_STRATEGY, each with `plan(sound, limits) -> list[PlannedChunk]`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from core.config import Settings
from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from core.errors import AudioTooLongError, SettingsError
from worker.chunking.silence import Energies


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """What a strategy knows of a recording: its length in samples, its silences in order, its 10 ms energies."""

    samples: int
    silences: tuple[Span, ...] = ()
    energies: Energies = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """All in samples; overlap None: the strategy's own default."""

    longest: int
    shortest: int
    overlap: int | None
    max_pause: int
    max_chunks: int

    @classmethod
    def from_settings(cls, settings: Settings) -> ChunkLimits:
        overlap = settings.chunk_overlap_seconds
        return cls(
            longest=int(settings.chunk_duration_seconds * SAMPLE_RATE),
            shortest=int(settings.min_chunk_duration_seconds * SAMPLE_RATE),
            overlap=None if overlap is None else int(overlap * SAMPLE_RATE),
            max_pause=int(settings.max_pause_seconds * SAMPLE_RATE),
            max_chunks=settings.max_chunks_per_job,
        )


Strategy = Callable[[AudioFeatures, ChunkLimits], list[PlannedChunk]]
_NOT_STRATEGIES = ("silence", "packing")


def strategies() -> list[str]:
    """The names CHUNK_STRATEGY may have."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NOT_STRATEGIES)


def strategy(name: str) -> Strategy:
    """Raises SettingsError naming those there are."""
    if name not in strategies():
        raise SettingsError(f"CHUNK_STRATEGY: {name!r} is none of {', '.join(strategies())}")
    plan: Strategy = importlib.import_module(f"{__name__}.{name}").plan
    return plan


def plan_chunks(name: str, audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    """Run a strategy. Raises AudioTooLongError when it needs more chunks than MAX_CHUNKS_PER_JOB."""
    chunks = strategy(name)(audio, limits)
    if len(chunks) > limits.max_chunks:
        raise AudioTooLongError(
            "The recording needs {count} chunks, the limit (MAX_CHUNKS_PER_JOB) is {limit}. "
            "Cut it into shorter recordings.",
            count=len(chunks),
            limit=limits.max_chunks,
        )
    return chunks
