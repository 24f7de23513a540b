"""What subtitle formats share: segments as cues short enough to read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from core.domain.result import Result, ResultSegment
from core.domain.transcript import Segment, Word
from worker.merger import words_of

LONGEST_TEXT = 84
"""Characters: two lines of 42, the usual limit of broadcasters."""
LONGEST_TIME = 7.0
"""Seconds. A single word that claims to last longer (the engine's guess in a silence) is shown this long."""
SHORTEST_TIME = 0.04
"""Seconds: one frame at 25 a second."""


@dataclass(frozen=True, slots=True)
class Cue:
    """start and end in milliseconds, end > start; one line of text."""

    start: int
    end: int
    text: str


def cues(result: Result) -> Iterator[Cue]:
    """In order, none overlapping the next, none empty."""
    latest, shortest, longest = 0, round(SHORTEST_TIME * 1000), round(LONGEST_TIME * 1000)
    for segment in result.segments:
        for words in _grouped(segment):
            start = max(round(words[0].start * 1000), latest)
            end = min(max(round(words[-1].end * 1000), start + shortest), start + longest)
            latest = end
            yield Cue(start, end, " ".join(word.word for word in words))


def _grouped(segment: ResultSegment) -> Iterator[list[Word]]:
    """The segment's words in groups of at most LONGEST_TEXT characters and LONGEST_TIME seconds."""
    plain = Segment(segment.start, segment.end, segment.text, segment.confidence, segment.words)
    group: list[Word] = []
    length = 0
    for word in words_of(plain):
        too_long = length + len(word.word) > LONGEST_TEXT or (group and word.end - group[0].start > LONGEST_TIME)
        if group and too_long:
            yield group
            group, length = [], 0
        group.append(word)
        length += len(word.word) + 1
    if group:
        yield group


def clock(milliseconds: int, separator: str) -> str:
    """`hh:mm:ss{separator}mmm`."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{separator}{rest:03}"
