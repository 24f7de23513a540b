"""Which words two overlapping chunks both heard: an alignment in order, by text and by time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from core.domain.transcript import Word

MIN_SIMILARITY = 80.0
"""Per cent of likeness from which two words count as the same."""
TIME_TOLERANCE = 0.75
"""Seconds that the engine's own word times may be off."""
TIME_WEIGHT = 0.9
"""Share of a pair's worth that goes with the largest difference in time: without it, repeated words slip by one."""
CONFIDENT_SCORE = 1 - TIME_WEIGHT / 2
"""Worth from which a match counts alone: half the difference in time that is allowed at all."""
_PUNCTUATION = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class TimedWord:
    """One word of a segment (`source`, its place in the chunk); `slack`: seconds its times may be off."""

    word: Word
    source: int
    tolerance: float = TIME_TOLERANCE


@dataclass(frozen=True, slots=True)
class WordMatch:
    """left and right: places of the same word in both chunks; time: the mean of its two centres, in seconds."""

    left: int
    right: int
    time: float


def match_words(left: Sequence[TimedWord], right: Sequence[TimedWord], start: float, end: float) -> list[WordMatch]:
    """The words that both heard between `start` and `end` seconds, in order, each at most once.

    Of all alignments in order the one with the most matches wins, matches at the same time counting most. A match whose
    neighbours do not match counts only where the times agree.
    """
    first_left = next((i for i, piece in enumerate(left) if piece.word.end > start - piece.tolerance), len(left))
    last_right = next((j for j, piece in enumerate(right) if piece.word.start > end + piece.tolerance), len(right))
    found = _align(left[first_left:], right[:last_right])
    known = [(first_left + i, j) for i, j in found]
    return [
        WordMatch(i, j, (midpoint(left[i].word) + midpoint(right[j].word)) / 2)
        for i, j in known
        if _time_score(left[i], right[j]) >= CONFIDENT_SCORE or (i - 1, j - 1) in known or (i + 1, j + 1) in known
    ]


def _align(left: Sequence[TimedWord], right: Sequence[TimedWord]) -> list[tuple[int, int]]:
    """Places of the best alignment (longest common subsequence, weighted)."""
    score = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    texts_left, texts_right = ([normalize(piece.word.word) for piece in side] for side in (left, right))
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            match = _time_score(left[i], right[j]) if is_similar(texts_left[i], texts_right[j]) else 0.0
            paired_up = match + score[i + 1][j + 1] if match else 0.0
            score[i][j] = max(paired_up, score[i + 1][j], score[i][j + 1])
    return _trace_path(left, right, score)


def _trace_path(
    left: Sequence[TimedWord], right: Sequence[TimedWord], score: Sequence[Sequence[float]]
) -> list[tuple[int, int]]:
    """Walk the table from its start: what is not skipped for free is a match."""
    found, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if score[i][j] == score[i + 1][j]:
            i += 1
        elif score[i][j] == score[i][j + 1]:
            j += 1
        else:
            found.append((i, j))
            i, j = i + 1, j + 1
    return found


def _time_score(one: TimedWord, other: TimedWord) -> float:
    """0 where the times rule the match out, up to 1 where they are the same."""
    apart = abs(midpoint(one.word) - midpoint(other.word)) / (one.tolerance + other.tolerance)
    return 1 - TIME_WEIGHT * apart if apart <= 1 else 0.0


def same_word(one: str, other: str) -> bool:
    """Alike but for case, punctuation and a letter heard differently."""
    return is_similar(normalize(one), normalize(other))


def is_similar(one: str, other: str) -> bool:
    return one == other or fuzz.ratio(one, other) >= MIN_SIMILARITY


def normalize(word: str) -> str:
    return _PUNCTUATION.sub("", unicodedata.normalize("NFC", word).casefold())


def midpoint(word: Word) -> float:
    return (word.start + word.end) / 2
