"""Merging of the chunks' segments, without duplicates where chunks overlap.

Methods: `none` concatenates the chunks. `simple` cuts each overlap in the middle and keeps the words on either side.
`smart` first matches the words of both chunks by time and text, so that a word appears once even if its two times are
on different sides of the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.domain.job_options import MergeMethod
from core.domain.transcript import ChunkTranscript, Segment, Word
from worker.alignment import TIME_TOLERANCE, TimedWord, WordMatch, match_words, midpoint


@dataclass(frozen=True, slots=True)
class MergedSegment:
    """A segment, with the index of its chunk."""

    chunk: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class _Overlap:
    """The stretch of the recording that two chunks share, in seconds."""

    start: float
    end: float

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2

    def contains(self, word: TimedWord) -> bool:
        return self.start - TIME_TOLERANCE < midpoint(word.word) < self.end + TIME_TOLERANCE


def merge(chunks: Sequence[ChunkTranscript], method: MergeMethod) -> list[MergedSegment]:
    """Return the segments of the recording in order, without overlaps. Times are in seconds.

    Chunks may be missing while the job runs. Only adjacent chunks are compared.
    """
    groups: list[list[Segment]] = []
    for position, chunk in enumerate(chunks):
        segments = [segment for segment in chunk.segments if segment.text.strip()]
        adjacent = position > 0 and chunks[position - 1].index == chunk.index - 1
        if adjacent and chunk.overlap > 0 and method is not MergeMethod.NONE:
            shared = _Overlap(chunk.start, chunk.start + chunk.overlap)
            groups[-1], segments = _resolve_overlap(groups[-1], segments, shared, method)
        groups.append(segments)
    merged = [
        MergedSegment(chunk.index, segment) for chunk, group in zip(chunks, groups, strict=True) for segment in group
    ]
    return _resolve_time_overlaps(merged)


class RunningMerge:
    """The same merge, one chunk at a time, for readers of a job that is still running.

    The last segment of a chunk may end later than in the merge of all chunks if the next one is not finished.
    """

    def __init__(self, method: MergeMethod) -> None:
        self._method = method
        self._last: MergedSegment | None = None
        self._head: tuple[int, list[Segment]] | None = None

    def extend(self, chunk: ChunkTranscript, following: ChunkTranscript | None) -> list[MergedSegment]:
        """Return the segments of the next chunk of the recording. following: the chunk after it, if it is finished."""
        segments = self._segments_of(chunk)
        after: list[Segment] = []
        if following is not None and following.index == chunk.index + 1:
            after = self._segments_of(following)
            if following.overlap > 0 and self._method is not MergeMethod.NONE:
                shared = _Overlap(following.start, following.start + following.overlap)
                segments, after = _resolve_overlap(segments, after, shared, self._method)
            self._head = (following.index, after)
        new = [MergedSegment(chunk.index, segment) for segment in segments]
        before = [] if self._last is None else [self._last]
        settled = _resolve_time_overlaps([*before, *new])[len(before) :]
        if not settled:
            return []
        # the next chunk is compared with the end that this segment has without it
        self._last = settled[-1]
        head = [MergedSegment(chunk.index + 1, segment) for segment in after[:1]]
        return _resolve_time_overlaps([*settled, *head])[: len(settled)]

    def _segments_of(self, chunk: ChunkTranscript) -> list[Segment]:
        """Return the chunk's segments, without the words that the chunk before it has."""
        if self._head is not None and self._head[0] == chunk.index:
            return self._head[1]
        return [segment for segment in chunk.segments if segment.text.strip()]


def _resolve_overlap(
    before: list[Segment], after: list[Segment], shared: _Overlap, method: MergeMethod
) -> tuple[list[Segment], list[Segment]]:
    """Remove the duplicate words of two adjacent chunks."""
    left, right = _timed_words(before), _timed_words(after)
    matches = match_words(left, right, shared.start, shared.end) if method is MergeMethod.SMART else []
    keep, drop = (
        _split_between_matches(left, right, matches, shared) if matches else _split_by_time(left, right, shared)
    )
    return _keep_words(before, left[:keep]), _keep_words(after, right[drop:])


def _split_by_time(left: Sequence[TimedWord], right: Sequence[TimedWord], shared: _Overlap) -> tuple[int, int]:
    """Return the number of left words to keep and of right words to drop, with the cut in the middle of the overlap.

    If one chunk has no words in the overlap, those of the other are not duplicates, and all are kept.
    """
    if not any(map(shared.contains, left)) or not any(map(shared.contains, right)):
        return len(left), 0
    keep = sum(1 for item in left if midpoint(item.word) < shared.middle)
    drop = sum(1 for item in right if midpoint(item.word) < shared.middle)
    return keep, drop


def _split_between_matches(
    left: Sequence[TimedWord], right: Sequence[TimedWord], matches: Sequence[WordMatch], shared: _Overlap
) -> tuple[int, int]:
    """Return the same as `_split_by_time`, with the cut between the two matches next to the middle.

    Unmatched words between these two are taken from the chunk that has more of them. Before the first match they are
    taken from the left chunk, and after the last one from the right chunk.
    """
    after = next((k for k, match in enumerate(matches) if match.time >= shared.middle), len(matches))
    first_left, first_right = (matches[after - 1].left + 1, matches[after - 1].right + 1) if after else (0, 0)
    last_left, last_right = (
        (matches[after].left, matches[after].right) if after < len(matches) else (len(left), len(right))
    )
    lefts = sum(1 for item in left[first_left:last_left] if shared.contains(item))
    rights = sum(1 for item in right[first_right:last_right] if shared.contains(item))
    if after == 0:
        return last_left, 0 if rights and not lefts else last_right
    if after == len(matches):
        return last_left if lefts and not rights else first_left, first_right
    return (last_left, last_right) if lefts >= rights else (first_left, first_right)


def _timed_words(segments: Sequence[Segment]) -> list[TimedWord]:
    """Return all words. Those without times of their own may be anywhere in their segment, so they match by text."""
    words = []
    for index, segment in enumerate(segments):
        tolerance = TIME_TOLERANCE if segment.words else TIME_TOLERANCE + (segment.end - segment.start) / 2
        words += [TimedWord(word, index, tolerance) for word in segment_words(segment)]
    return words


def segment_words(segment: Segment) -> list[Word]:
    """Return the segment's words. Without word times, its duration is divided by the lengths of the words."""
    if segment.words:
        return list(segment.words)
    texts = segment.text.split()
    letters = sum(len(text) for text in texts) or 1
    words, start = [], segment.start
    for text in texts:
        end = start + (segment.end - segment.start) * len(text) / letters
        words.append(Word(text, start, end, segment.confidence))
        start = end
    return words


def _keep_words(segments: Sequence[Segment], kept: Sequence[TimedWord]) -> list[Segment]:
    """Return the segments reduced to these words. A segment that keeps all its words is unchanged."""
    result: list[Segment] = []
    for index, segment in enumerate(segments):
        words = [item.word for item in kept if item.source == index]
        if len(words) == len(segment_words(segment)):
            result.append(segment)
        elif words:
            text = " ".join(word.word.strip() for word in words)
            timed = tuple(words) if segment.words else ()
            result.append(replace(segment, start=words[0].start, end=words[-1].end, text=text, words=timed))
    return result


def _resolve_time_overlaps(merged: Sequence[MergedSegment]) -> list[MergedSegment]:
    """Cut overlapping segments in the middle of the overlap. The end of each is at least its start."""
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
    """Return the segment from `start` to `end` seconds, with the times of its words limited to that range."""
    words = tuple(
        replace(word, start=min(max(word.start, start), end), end=min(max(word.end, start), end))
        for word in segment.words
    )
    return replace(segment, start=start, end=end, words=words)
