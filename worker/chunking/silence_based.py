"""Cut in the middle of silences, in a stretch that is too long at its deepest dip, in speech where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.domain.spans import PlannedChunk, Span
from worker.chunking import AudioFeatures, ChunkLimits
from worker.chunking.packing import SPEECH_OVERLAP, packed, speech
from worker.chunking.silence import FRAME, levels

DIP_BLOCKS = 20
"""A dip is 200 ms long."""
DIP_DEPTH = 12.0
"""dB that a dip lies below the stretch's median."""


def plan(audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    pieces = (piece for stretch in speech(audio, limits.max_pause) for piece in split(audio, stretch, limits))
    return packed(pieces, limits)


def split(audio: AudioFeatures, stretch: Span, limits: ChunkLimits) -> Iterator[tuple[Span, int]]:
    """Pieces of at most the longest chunk, and how many samples each shares with the one before."""
    first, shared = stretch.first, 0
    while stretch.last - first > limits.longest:
        end = first + limits.longest
        dip = deepest_dip(audio, Span(first + limits.longest * 2 // 3, min(end, stretch.last - limits.shortest)))
        if dip is not None:
            yield Span(first, dip), shared
            first, shared = dip, 0
        else:
            overlap = SPEECH_OVERLAP if limits.overlap is None else limits.overlap
            yield Span(first, end), shared
            first = max(min(end - overlap, stretch.last - limits.shortest), first + 1)
            shared = end - first
    yield Span(first, stretch.last), shared


def deepest_dip(audio: AudioFeatures, where: Span) -> int | None:
    """The middle (a sample) of the quietest 200 ms in `where`, if it is clearly quieter than the rest of it."""
    blocks = audio.energies[where.first // FRAME : where.last // FRAME]
    if len(blocks) <= DIP_BLOCKS:
        return None
    sums = np.concatenate([[0], np.cumsum(blocks)])
    means = (sums[DIP_BLOCKS:] - sums[:-DIP_BLOCKS]) // DIP_BLOCKS
    best = int(np.argmin(means))
    median = float(np.median(levels(blocks)))
    if float(levels(means[best : best + 1])[0]) > median - DIP_DEPTH:
        return None
    return (where.first // FRAME + best + DIP_BLOCKS // 2) * FRAME
