"""Chunking strategies. CHUNK_STRATEGY names a module of this package with `plan(audio, limits)`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from core.config import Settings
from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from core.errors import AudioTooLongError, SettingsError
from worker.chunking.silence import FRAME, Energies


@dataclass(frozen=True, slots=True)
class AudioFeatures:
    """Input of a strategy. samples: length of the audio; silences: in order; energies: one per frame of 10 ms."""

    samples: int
    silences: tuple[Span, ...] = ()
    energies: Energies = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def after(self, first: int) -> AudioFeatures:
        """Return the features of the audio from sample `first` on, counted from there."""
        silences = (Span(max(each.first - first, 0), each.last - first) for each in self.silences if each.last > first)
        return AudioFeatures(max(self.samples - first, 0), tuple(silences), self.energies[first // FRAME :])


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """Limits of a plan, in samples except for `max_chunks`. overlap: None for the strategy's default."""

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
_HELPERS = ("silence", "packing")


def strategies() -> list[str]:
    """Return the valid values of CHUNK_STRATEGY."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _HELPERS)


def strategy(name: str) -> Strategy:
    """Return the strategy. Raises SettingsError, which lists the valid names."""
    if name not in strategies():
        raise SettingsError(f"CHUNK_STRATEGY: {name!r} is unknown; use {', '.join(strategies())}")
    plan: Strategy = importlib.import_module(f"{__name__}.{name}").plan
    return plan


def plan_chunks(name: str, audio: AudioFeatures, limits: ChunkLimits, earlier: int = 0) -> list[PlannedChunk]:
    """Run the strategy. earlier: number of chunks of the recording before this audio.

    Raises SettingsError, and AudioTooLongError if the recording needs more than MAX_CHUNKS_PER_JOB chunks.
    """
    chunks = strategy(name)(audio, limits)
    if earlier + len(chunks) > limits.max_chunks:
        raise AudioTooLongError(
            "The recording needs {count} chunks, the limit (MAX_CHUNKS_PER_JOB) is {limit}. "
            "Cut it into shorter recordings.",
            count=earlier + len(chunks),
            limit=limits.max_chunks,
        )
    return chunks
