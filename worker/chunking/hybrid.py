"""Strategy: cuts in silences, and fixed windows in speech without silences."""

from __future__ import annotations

from core.domain.spans import PlannedChunk
from worker.chunking import AudioFeatures, ChunkLimits
from worker.chunking.packing import SPEECH_OVERLAP, fixed_windows, pack, speech_stretches


def plan(audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    overlap = SPEECH_OVERLAP if limits.overlap is None else limits.overlap
    pieces = (
        piece
        for stretch in speech_stretches(audio, limits.max_pause)
        for piece in fixed_windows(stretch, limits.longest, overlap, limits.shortest)
    )
    return pack(pieces, limits)
