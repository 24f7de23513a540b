"""Subtitle cues: segments split into parts that are short enough to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.domain.result import Result, ResultSegment
from core.domain.transcript import Segment, Word
from worker.merger import segment_words

MAX_TEXT = 84
"""Characters of a cue: two lines of 42, a usual limit of broadcasters."""
MAX_DURATION = 7.0
"""Seconds of a cue. A longer word, which the engine reports in silence, is shown for this time."""
MIN_DURATION = 0.04
"""Seconds of a cue: one frame at 25 frames per second."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A text shown from `start` to `end` milliseconds; end > start."""

    start: int
    end: int
    text: str


def cues(result: Result) -> Iterator[Cue]:
    """Yield the cues in order. No cue is empty or overlaps the next one."""
    latest, shortest, longest = 0, round(MIN_DURATION * 1000), round(MAX_DURATION * 1000)
    for segment in result.segments:
        for words in _group_words(segment):
            start = max(round(words[0].start * 1000), latest)
            end = min(max(round(words[-1].end * 1000), start + shortest), start + longest)
            latest = end
            yield Cue(start, end, " ".join(word.word for word in words))


def _group_words(segment: ResultSegment) -> Iterator[list[Word]]:
    """Group the words of a segment into groups of at most MAX_TEXT characters and MAX_DURATION seconds."""
    plain = Segment(segment.start, segment.end, segment.text, segment.confidence, segment.words)
    group: list[Word] = []
    length = 0
    for word in segment_words(plain):
        too_long = length + len(word.word) > MAX_TEXT or (group and word.end - group[0].start > MAX_DURATION)
        if group and too_long:
            yield group
            group, length = [], 0
        group.append(word)
        length += len(word.word) + 1
    if group:
        yield group


def clock(milliseconds: int, separator: str) -> str:
    """Format a time as `hh:mm:ss{separator}mmm`."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{separator}{rest:03}"
