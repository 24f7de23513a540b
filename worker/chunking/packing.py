"""Stretches of speech between silences, and their packing into chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from worker.chunking import AudioFeatures, ChunkLimits

SPEECH_OVERLAP = 3 * SAMPLE_RATE
"""Default overlap, in samples, of two chunks that are cut in speech."""


def speech_stretches(audio: AudioFeatures, max_pause: int) -> Iterator[Span]:
    """Yield the stretches between silences, each with up to half of `max_pause` of silence on either side."""
    start = 0
    for silence in audio.silences:
        padding = min(max_pause, silence.samples) // 2
        if silence.first > 0:
            yield Span(start, silence.first + padding)
        start = silence.last - padding
    if not audio.silences or audio.silences[-1].last < audio.samples:
        yield Span(start, audio.samples)


def fixed_windows(stretch: Span, longest: int, overlap: int, shortest: int) -> Iterator[tuple[Span, int]]:
    """Yield the windows of a stretch, each with the number of samples that it shares with the previous one.

    The last window starts earlier if it would be shorter than `shortest`.
    """
    first, shared = stretch.first, 0
    while first + longest < stretch.last:
        yield Span(first, first + longest), shared
        end = first + longest
        first = max(min(end - overlap, stretch.last - shortest), end - longest + 1)
        shared = end - first
    yield Span(first, stretch.last), shared


def pack(pieces: Iterable[tuple[Span, int]], limits: ChunkLimits) -> list[PlannedChunk]:
    """Pack pieces into chunks, greedily and in order. A piece that overlaps the previous one starts a new chunk.

    pieces: spans, each with the number of samples that it shares with the previous one.
    """
    chunks: list[PlannedChunk] = []
    spans: list[Span] = []
    overlap = 0
    for piece, shared in pieces:
        if spans and (shared or sum(span.samples for span in spans) + piece.samples > limits.longest):
            chunks.append(PlannedChunk(tuple(join_adjacent(spans)), overlap / SAMPLE_RATE))
            spans, overlap = [], shared
        spans.append(piece)
    if spans:
        chunks.append(PlannedChunk(tuple(join_adjacent(spans)), overlap / SAMPLE_RATE))
    return chunks


def join_adjacent(spans: Sequence[Span]) -> list[Span]:
    """Return the spans with adjacent ones joined."""
    result: list[Span] = []
    for span in spans:
        if result and result[-1].last == span.first:
            result[-1] = Span(result[-1].first, span.last)
        else:
            result.append(span)
    return result
