"""Put the chunks' segments together: nothing twice where chunks overlap, nothing lost.

Where a cut fell in silence nothing is compared. Where two chunks share sound, the cut goes through the middle of the
shared stretch: a word belongs to the side it lies on (`simple`). `smart` first finds out which words both chunks heard,
by time and text, so that a word whose two times lie on different sides still comes exactly once. `none` only joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.domain.job_options import MergeMethod
from core.domain.transcript import ChunkTranscript, Segment, Word
from worker.alignment import TIME_TOLERANCE, TimedWord, WordMatch, match_words, midpoint


@dataclass(frozen=True, slots=True)
class MergedSegment:
    chunk: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class _Overlap:
    """The stretch of the recording, in seconds, that two chunks both have."""

    start: float
    end: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2

    def holds(self, piece: TimedWord) -> bool:
        return self.start - TIME_TOLERANCE < midpoint(piece.word) < self.end + TIME_TOLERANCE


def merge(chunks: Sequence[ChunkTranscript], method: MergeMethod) -> list[MergedSegment]:
    """Segments of the whole recording in order; times in seconds, none overlapping the next.

    Chunks may be missing (a job still running): only neighbours are compared.
    """
    kept: list[list[Segment]] = []
    for place, chunk in enumerate(chunks):
        segments = [segment for segment in chunk.segments if segment.text.strip()]
        neighbours = place > 0 and chunks[place - 1].index == chunk.index - 1
        if neighbours and chunk.overlap > 0 and method is not MergeMethod.NONE:
            shared = _Overlap(chunk.start, chunk.start + chunk.overlap)
            kept[-1], segments = _resolve_overlap(kept[-1], segments, shared, method)
        kept.append(segments)
    merged = [
        MergedSegment(chunk.index, segment) for chunk, group in zip(chunks, kept, strict=True) for segment in group
    ]
    return _resolve_time_overlaps(merged)


def _resolve_overlap(
    before: list[Segment], after: list[Segment], shared: _Overlap, method: MergeMethod
) -> tuple[list[Segment], list[Segment]]:
    """Decide the words of the stretch that two chunks share."""
    left, right = _timed_words(before), _timed_words(after)
    pairs = match_words(left, right, shared.start, shared.end) if method is MergeMethod.SMART else []
    keep, drop = _split_between_matches(left, right, pairs, shared) if pairs else _split_by_time(left, right, shared)
    return _keep_words(before, left[:keep]), _keep_words(after, right[drop:])


def _split_by_time(left: Sequence[TimedWord], right: Sequence[TimedWord], shared: _Overlap) -> tuple[int, int]:
    """How many words of the left to keep and of the right to drop: each belongs to its side of the middle.

    Where one chunk heard nothing at all in the shared stretch, the other's words are no duplicates and all stay.
    """
    if not any(map(shared.holds, left)) or not any(map(shared.holds, right)):
        return len(left), 0
    keep = sum(1 for piece in left if midpoint(piece.word) < shared.middle)
    drop = sum(1 for piece in right if midpoint(piece.word) < shared.middle)
    return keep, drop


def _split_between_matches(
    left: Sequence[TimedWord], right: Sequence[TimedWord], pairs: Sequence[WordMatch], shared: _Overlap
) -> tuple[int, int]:
    """As `_by_time`, with pairs never torn apart: the cut goes between the pairs left and right of the middle.

    What only one of them heard between these two pairs, or heard differently, comes from one side, whole: from the one
    with more words; before the first pair from the left and after the last from the right, which heard it from within.
    """
    after = next((k for k, pair in enumerate(pairs) if pair.time >= shared.middle), len(pairs))
    first_left, first_right = (pairs[after - 1].left + 1, pairs[after - 1].right + 1) if after else (0, 0)
    last_left, last_right = (pairs[after].left, pairs[after].right) if after < len(pairs) else (len(left), len(right))
    lefts = sum(1 for piece in left[first_left:last_left] if shared.holds(piece))
    rights = sum(1 for piece in right[first_right:last_right] if shared.holds(piece))
    if after == 0:
        return last_left, 0 if rights and not lefts else last_right
    if after == len(pairs):
        return last_left if lefts and not rights else first_left, first_right
    return (last_left, last_right) if lefts >= rights else (first_left, first_right)


def _timed_words(segments: Sequence[Segment]) -> list[TimedWord]:
    return [
        TimedWord(word, index, _slack(segment)) for index, segment in enumerate(segments) for word in words_of(segment)
    ]


def _slack(segment: Segment) -> float:
    """Words spread over a segment may stand anywhere in it: text has to find them."""
    return TIME_TOLERANCE if segment.words else TIME_TOLERANCE + (segment.end - segment.start) / 2


def words_of(segment: Segment) -> list[Word]:
    """The segment's words; where the engine gave none, its text's words spread evenly by their letters."""
    if segment.words:
        return list(segment.words)
    texts = segment.text.split()
    letters = sum(len(text) for text in texts) or 1
    words, at = [], segment.start
    for text in texts:
        end = at + (segment.end - segment.start) * len(text) / letters
        words.append(Word(text, at, end, segment.confidence))
        at = end
    return words


def _keep_words(segments: Sequence[Segment], pieces: Sequence[TimedWord]) -> list[Segment]:
    """The segments with only these words left; one that kept all of them stays as it is."""
    result: list[Segment] = []
    for index, segment in enumerate(segments):
        words = [piece.word for piece in pieces if piece.source == index]
        if len(words) == len(words_of(segment)):
            result.append(segment)
        elif words:
            text = " ".join(word.word.strip() for word in words)
            mine = tuple(words) if segment.words else ()
            result.append(replace(segment, start=words[0].start, end=words[-1].end, text=text, words=mine))
    return result


def _resolve_time_overlaps(merged: Sequence[MergedSegment]) -> list[MergedSegment]:
    """No segment ends before it starts or overlaps the next: where two do, both give way up to the middle."""
    result: list[MergedSegment] = []
    for item in merged:
        start, end = max(item.segment.start, 0.0), item.segment.end
        if result and start < result[-1].segment.end:
            before = result[-1].segment
            start = max(min((start + before.end) / 2, end), before.start)
            result[-1] = replace(result[-1], segment=_clamp(before, before.start, start))
        result.append(replace(item, segment=_clamp(item.segment, start, max(end, start))))
    return result


def _clamp(segment: Segment, start: float, end: float) -> Segment:
    """The segment from `start` to `end`, its words' times inside."""
    words = tuple(
        replace(word, start=min(max(word.start, start), end), end=min(max(word.end, start), end))
        for word in segment.words
    )
    return replace(segment, start=start, end=end, words=words)
