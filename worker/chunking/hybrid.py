"""Cut at silences, and in fixed windows inside stretches that have none."""

from __future__ import annotations

from collections.abc import Iterator

from core.domain.spans import PlannedChunk, Span
from worker.chunking import AudioFeatures, ChunkLimits
from worker.chunking.packing import SPEECH_OVERLAP, packed, speech, windows


def plan(audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    return packed(_pieces(audio, limits), limits)


def _pieces(audio: AudioFeatures, limits: ChunkLimits) -> Iterator[tuple[Span, int]]:
    overlap = SPEECH_OVERLAP if limits.overlap is None else limits.overlap
    for stretch in speech(audio, limits.max_pause):
        yield from windows(stretch, limits.longest, overlap, limits.shortest)
