"""Cuts in silences, and fixed windows in speech without silences."""

from __future__ import annotations

from core.domain.spans import PlannedChunk
from worker.chunking import AudioFeatures, ChunkLimits
from worker.chunking.packing import SPEECH_OVERLAP, packed, speech, windows


def plan(audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    overlap = SPEECH_OVERLAP if limits.overlap is None else limits.overlap
    pieces = (
        piece
        for stretch in speech(audio, limits.max_pause)
        for piece in windows(stretch, limits.longest, overlap, limits.shortest)
    )
    return packed(pieces, limits)
