"""Strategy: cuts in silences. Stretches that are too long are cut at their deepest dip, else in speech."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.domain.spans import PlannedChunk, Span
from worker.chunking import AudioFeatures, ChunkLimits
from worker.chunking.packing import SPEECH_OVERLAP, pack, speech_stretches
from worker.chunking.silence import FRAME, levels

DIP_FRAMES = 20
"""Length of a dip in frames: 200 ms."""
DIP_DEPTH = 12.0
"""dB by which a dip is below the median level of its surroundings."""


def plan(audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    pieces = (piece for stretch in speech_stretches(audio, limits.max_pause) for piece in split(audio, stretch, limits))
    return pack(pieces, limits)


def split(audio: AudioFeatures, stretch: Span, limits: ChunkLimits) -> Iterator[tuple[Span, int]]:
    """Yield pieces of at most the longest chunk, and the number of samples that each shares with the previous one."""
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


def deepest_dip(audio: AudioFeatures, span: Span) -> int | None:
    """Return the middle sample of the quietest 200 ms of `span`, or None if they are not quiet enough to be a dip."""
    energies = audio.energies[span.first // FRAME : span.last // FRAME]
    if len(energies) <= DIP_FRAMES:
        return None
    sums = np.concatenate([[0], np.cumsum(energies)])
    means = (sums[DIP_FRAMES:] - sums[:-DIP_FRAMES]) // DIP_FRAMES
    lowest = int(np.argmin(means))
    median = float(np.median(levels(energies)))
    if float(levels(means[lowest : lowest + 1])[0]) > median - DIP_DEPTH:
        return None
    return (span.first // FRAME + lowest + DIP_FRAMES // 2) * FRAME
