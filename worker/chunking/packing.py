"""What the strategies share: stretches of speech between silences, and packing them into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from worker.chunking import AudioFeatures, ChunkLimits

SPEECH_OVERLAP = 3 * SAMPLE_RATE
"""Samples that two chunks share where a cut has to fall into speech."""


def speech(audio: AudioFeatures, max_pause: int) -> Iterator[Span]:
    """Stretches between silences, each keeping up to half of `max_pause` of the silence on either side."""
    start = 0
    for silence in audio.silences:
        kept = min(max_pause, silence.samples) // 2
        if silence.first > 0:
            yield Span(start, silence.first + kept)
        start = silence.last - kept
    if not audio.silences or audio.silences[-1].last < audio.samples:
        yield Span(start, audio.samples)


def windows(stretch: Span, longest: int, overlap: int, shortest: int) -> Iterator[tuple[Span, int]]:
    """Fixed windows over a stretch, and how many samples each shares with the one before.

    The last window is moved back where it would be shorter than `shortest`.
    """
    first, shared = stretch.first, 0
    while first + longest < stretch.last:
        yield Span(first, first + longest), shared
        end = first + longest
        first = max(min(end - overlap, stretch.last - shortest), end - longest + 1)
        shared = end - first
    yield Span(first, stretch.last), shared


def packed(pieces: Iterable[tuple[Span, int]], limits: ChunkLimits) -> list[PlannedChunk]:
    """Greedily, in order: a chunk takes pieces while they fit. A piece that shares sound with the last starts anew."""
    chunks: list[PlannedChunk] = []
    spans: list[Span] = []
    overlap = 0
    for piece, shared in pieces:
        if spans and (shared or total(spans) + piece.samples > limits.longest):
            chunks.append(PlannedChunk(tuple(joined(spans)), overlap / SAMPLE_RATE))
            spans, overlap = [], shared
        spans.append(piece)
    if spans:
        chunks.append(PlannedChunk(tuple(joined(spans)), overlap / SAMPLE_RATE))
    return chunks


def total(spans: Sequence[Span]) -> int:
    return sum(span.samples for span in spans)


def joined(spans: Sequence[Span]) -> list[Span]:
    """Spans that touch become one."""
    result: list[Span] = []
    for span in spans:
        if result and result[-1].last == span.first:
            result[-1] = Span(result[-1].first, span.last)
        else:
            result.append(span)
    return result
