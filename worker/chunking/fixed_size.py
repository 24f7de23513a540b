"""Strategy: fixed windows of CHUNK_DURATION_SECONDS that overlap by CHUNK_OVERLAP_SECONDS (default 5 s)."""

from __future__ import annotations

from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from worker.chunking import AudioFeatures, ChunkLimits
from worker.chunking.packing import fixed_windows

OVERLAP = 5 * SAMPLE_RATE
"""Default overlap in samples."""


def plan(audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    if audio.samples == 0:
        return []
    overlap = OVERLAP if limits.overlap is None else limits.overlap
    whole = Span(0, audio.samples)
    return [
        PlannedChunk((window,), shared / SAMPLE_RATE)
        for window, shared in fixed_windows(whole, limits.longest, overlap, limits.shortest)
    ]
