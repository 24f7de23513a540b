"""Preparation of a recording: its working audio, and the plan of its chunks."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from worker.audio import decode
from worker.chunking import AudioFeatures, ChunkLimits, plan_chunks
from worker.chunking.silence import SilenceDetector, exclude_quiet_speech, is_digital_silence
from worker.ffmpeg import deadline

EVEN_LEVEL_STRATEGY = "fixed_size"
"""Strategy for audio of even level, in which silence and speech cannot be distinguished."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared recording. samples: its length; decode_seconds: elapsed time of decoding and planning."""

    samples: int
    chunks: list[PlannedChunk]
    decode_seconds: float

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.samples / SAMPLE_RATE


async def prepare(
    source: Path,
    pcm: Path,
    limits: ChunkLimits,
    *,
    strategy: str,
    threshold_dbfs: float,
    min_silence: float,
    max_duration: float,
) -> Prepared:
    """Decode `source` to `pcm` and plan its chunks. Durations in seconds.

    Raises the errors of `decode` and `plan_chunks`.
    """
    started = time.monotonic()
    detector = SilenceDetector(round(min_silence * 1000))
    limit = deadline((await asyncio.to_thread(source.stat)).st_size)
    samples = await decode(source, pcm, max_duration=max_duration, deadline=limit, on_pcm=detector.feed)
    chunks = await asyncio.to_thread(plan, detector, limits, strategy, threshold_dbfs)
    return Prepared(samples, chunks, time.monotonic() - started)


def plan(detector: SilenceDetector, limits: ChunkLimits, strategy: str, threshold_dbfs: float) -> list[PlannedChunk]:
    """Plan the chunks: none for digital silence, fixed windows for audio of even level below the threshold."""
    energies = detector.energies()
    if is_digital_silence(energies):
        return []
    silences = exclude_quiet_speech(detector.finish(threshold_dbfs), energies, detector.min_silence_ms)
    even_level = silences == [Span(0, detector.samples)]
    audio = AudioFeatures(detector.samples, tuple(silences), energies)
    return plan_chunks(EVEN_LEVEL_STRATEGY if even_level else strategy, audio, limits)
