"""Segments as an engine's tokens: their text, their words, and the windows that one encode covers."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from core.domain.spans import SAMPLE_RATE
from core.domain.transcript import Segment, Word
from worker.cut_points import quietest_sample
from worker.transcriber import Samples

WINDOW = 30 * SAMPLE_RATE
"""Samples that one encode covers."""
TICK = 0.02
"""Seconds per step of a timestamp token."""
TOP_LAYERS = 3
"""Last decoder layers whose heads give the token times of models without known alignment heads."""


@dataclass(frozen=True, slots=True)
class Token:
    """A text token. data: its bytes; probability: 0..1; end: seconds, 0 without token times."""

    data: bytes
    probability: float
    end: float


@dataclass(frozen=True, slots=True)
class TokenSegment:
    """The tokens between two timestamps. start, end: seconds."""

    start: float
    end: float
    tokens: tuple[Token, ...]

    def moved(self, offset: float, longest: float) -> TokenSegment:
        """Return the segment moved by `offset` seconds, with all times limited to `longest` seconds."""

        def at(seconds: float) -> float:
            return min(seconds + offset, longest)

        tokens = tuple(replace(token, end=at(token.end)) for token in self.tokens)
        return TokenSegment(at(self.start), at(self.end), tokens)


def split_at_timestamps(tokens: Iterable[Token | float], end: float) -> Iterator[TokenSegment]:
    """Yield the segments of a transcript. tokens: timestamps as seconds, in between text; end: seconds of the last."""
    start, text = 0.0, list[Token]()
    for token in tokens:
        if isinstance(token, Token):
            text.append(token)
            continue
        at = max(token, start)
        if text:
            yield TokenSegment(start, at, tuple(text))
        start, text = at, []
    if text:
        yield TokenSegment(start, max(end, start), tuple(text))


def to_segments(segments: Iterable[TokenSegment], offset: float, longest: float, *, words: bool) -> Iterator[Segment]:
    """Yield the segments that have text, moved by `offset` seconds and limited to `longest`. words: True for words."""
    for segment in segments:
        text = decode(segment.tokens)
        if text:
            moved = segment.moved(offset, longest)
            confidence = sum(token.probability for token in segment.tokens) / len(segment.tokens)
            times = tuple(group_words(moved)) if words else ()
            yield Segment(round(moved.start, 3), round(moved.end, 3), text, round(confidence, 4), times)


def decode(tokens: Sequence[Token]) -> str:
    """Decode the joined bytes, since Vietnamese letters are split across tokens."""
    text = b"".join(token.data for token in tokens).decode("utf-8", errors="ignore")
    return unicodedata.normalize("NFC", text).strip()


def group_words(segment: TokenSegment) -> Iterator[Word]:
    """Group tokens into words; a token that begins with a space starts a word.

    The alignment heads give the end of a token. A word starts at the end of the previous one, which halves the error
    (measured by `tests/benchmarks/words.py`). Times are in order and within the segment.
    """
    groups: list[list[Token]] = []
    for token in segment.tokens:
        if token.data.startswith(b" ") or not groups:
            groups.append([])
        groups[-1].append(token)
    end = segment.start
    for group in groups:
        text = decode(group)
        if text:
            start, end = end, min(max(group[-1].end, end), segment.end)
            probability = sum(token.probability for token in group) / len(group)
            yield Word(text, round(start, 3), round(end, 3), round(probability, 4))


def windows(samples: Samples) -> Iterator[tuple[int, int]]:
    """Yield windows (first sample, last exclusive) of at most 30 s, cut at the quietest point of the last 5 s."""
    first = 0
    while len(samples) - first > WINDOW:
        last = quietest_sample(samples, first + WINDOW - 5 * SAMPLE_RATE, first + WINDOW)
        yield first, last
        first = last
    yield first, len(samples)
