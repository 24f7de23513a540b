"""From a recording of any accepted format to working audio and a plan of its chunks."""

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

IN_DOUBT = "fixed_size"


@dataclass(frozen=True, slots=True)
class Prepared:
    """samples: length of the working audio; decode_seconds: decoding and silence search together, wall clock."""

    samples: int
    chunks: list[PlannedChunk]
    decode_seconds: float

    @property
    def duration(self) -> float:
        """Seconds."""
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
    """Decode `source` to `pcm` and plan. Durations in seconds. Raises what `decode` and `plan_chunks` raise."""
    started = time.monotonic()
    detector = SilenceDetector(round(min_silence * 1000))
    limit = deadline((await asyncio.to_thread(source.stat)).st_size)
    samples = await decode(source, pcm, max_duration=max_duration, deadline=limit, on_pcm=detector.feed)
    chunks = await asyncio.to_thread(plan, detector, limits, strategy, threshold_dbfs)
    return Prepared(samples, chunks, time.monotonic() - started)


def plan(detector: SilenceDetector, limits: ChunkLimits, strategy: str, threshold_dbfs: float) -> list[PlannedChunk]:
    """Digital silence has no chunks; sound of one even level below the threshold is in doubt and cut by the clock."""
    energies = detector.energies()
    if is_digital_silence(energies):
        return []
    silences = exclude_quiet_speech(detector.finish(threshold_dbfs), energies, detector.min_silence_ms)
    nobody = silences == [Span(0, detector.samples)]
    sound = AudioFeatures(detector.samples, tuple(silences), energies)
    return plan_chunks(IN_DOUBT if nobody else strategy, sound, limits)
