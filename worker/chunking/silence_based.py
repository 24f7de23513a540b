"""Strategy: cuts in silences, and in shorter pauses where these fill a chunk better; without any, in speech."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from worker.chunking import AudioFeatures, ChunkLimits
from worker.chunking.packing import SPEECH_OVERLAP, pack, speech_stretches
from worker.chunking.silence import FRAME, SPEECH_RANGE, levels

DIP_FRAMES = 20
"""Length of a dip in frames: 200 ms."""
DIP_DEPTH = 12.0
"""dB by which a dip is below the median level of its surroundings."""
LONG_PAUSE = 0.6
"""Part of the longest pause's length from which a pause counts as one between sentences."""
SURROUNDINGS = 10 * SAMPLE_RATE
"""Samples before a possible cut whose median level is that of speech."""
FULL = 0.9
"""Part of the longest chunk from which a chunk ends at a silence rather than at a pause in the next stretch."""
SHORTEST_PIECE = 2 * SAMPLE_RATE
"""Minimum samples of a stretch that fill up a chunk."""


def plan(audio: AudioFeatures, limits: ChunkLimits) -> list[PlannedChunk]:
    return pack(fill(audio, speech_stretches(audio, limits.max_pause), limits), limits)


def fill(audio: AudioFeatures, stretches: Iterator[Span], limits: ChunkLimits) -> Iterator[tuple[Span, int]]:
    """Cut the stretches into pieces that fill chunks. Yield each with the samples that it shares with the previous one.

    A stretch that does not fit into the rest of a chunk is cut at its last pause in this rest, if that fills at least
    two thirds of the chunk; otherwise it starts the next chunk.
    """
    used = 0
    for stretch in stretches:
        first, shared = stretch.first, 0
        while stretch.last - first > limits.longest - used:
            end = first + limits.longest - used
            cut = None
            if used < FULL * limits.longest:
                start = first + max(limits.longest * 2 // 3 - used, SHORTEST_PIECE)
                cut = last_dip(audio, Span(start, min(end, stretch.last - limits.shortest)))
            if cut is not None:
                yield Span(first, cut), shared
                first, shared = cut, 0
            elif not used:
                overlap = SPEECH_OVERLAP if limits.overlap is None else limits.overlap
                yield Span(first, end), shared
                first = max(min(end - overlap, stretch.last - limits.shortest), first + 1)
                shared = end - first
            used = 0
        yield Span(first, stretch.last), shared
        used += stretch.last - first


def last_dip(audio: AudioFeatures, span: Span) -> int | None:
    """Return the middle sample of the last long pause in `span`, or None if there is none.

    A pause has 200 ms that are as quiet as the quietest ones, or SPEECH_RANGE below the median of their surroundings,
    and at least DIP_DEPTH below it. Long ones have LONG_PAUSE of the longest one's length: others may be in a sentence.
    """
    energies = audio.energies[max(span.first, 0) // FRAME : max(span.last, 0) // FRAME]
    if len(energies) <= DIP_FRAMES:
        return None
    sums = np.concatenate([[0], np.cumsum(energies)])
    means = levels((sums[DIP_FRAMES:] - sums[:-DIP_FRAMES]) // DIP_FRAMES)
    before = audio.energies[max(span.last - SURROUNDINGS, 0) // FRAME : span.last // FRAME]
    median = float(np.median(levels(before)))
    limit = max(float(means.min()), median - SPEECH_RANGE)
    if limit > median - DIP_DEPTH:
        return None
    dips = np.flatnonzero(means <= limit)
    pauses = np.split(dips, np.flatnonzero(np.diff(dips) > 1) + 1)
    longest = max(len(pause) for pause in pauses) + DIP_FRAMES
    last = [pause for pause in pauses if len(pause) + DIP_FRAMES >= LONG_PAUSE * longest][-1]
    middle = int(last[0] + last[-1]) // 2
    return (span.first // FRAME + middle + DIP_FRAMES // 2) * FRAME
