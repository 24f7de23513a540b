"""Alignment of the words that two overlapping chunks have in common, by order, text and time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from core.domain.transcript import Word

MIN_SIMILARITY = 80.0
"""Percentage of similarity from which two words count as equal."""
TIME_TOLERANCE = 0.75
"""Seconds by which word times of the engine may be wrong."""
TIME_WEIGHT = 0.9
"""Share of a match's score that depends on time. Without it, repeated words would match their neighbours."""
CONFIDENT_SCORE = 1 - TIME_WEIGHT / 2
"""Score from which a match counts without a matching neighbour. It stands for half of the tolerated time difference."""
_PUNCTUATION = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word. source: index of its segment; tolerance: seconds by which its times may be wrong."""

    word: Word
    source: int
    tolerance: float = TIME_TOLERANCE


@dataclass(frozen=True, slots=True)
class WordMatch:
    """A word that both chunks contain. left, right: its indices; time: mean of its two midpoints in seconds."""

    left: int
    right: int
    time: float


def match_words(left: Sequence[TimedWord], right: Sequence[TimedWord], start: float, end: float) -> list[WordMatch]:
    """Match the words of two chunks in their overlap, `start` to `end` seconds: in order, and each word at most once.

    The alignment with the highest score wins; matches at the same time score highest. A match without a matching
    neighbour counts only if its score is at least CONFIDENT_SCORE.
    """
    first_left = next((i for i, item in enumerate(left) if item.word.end > start - item.tolerance), len(left))
    last_right = next((j for j, item in enumerate(right) if item.word.start > end + item.tolerance), len(right))
    matches = [(first_left + i, j) for i, j in _align(left[first_left:], right[:last_right])]
    return [
        WordMatch(i, j, (midpoint(left[i].word) + midpoint(right[j].word)) / 2)
        for i, j in matches
        if _time_score(left[i], right[j]) >= CONFIDENT_SCORE or (i - 1, j - 1) in matches or (i + 1, j + 1) in matches
    ]


def _align(left: Sequence[TimedWord], right: Sequence[TimedWord]) -> list[tuple[int, int]]:
    """Return the index pairs of the best alignment: a weighted longest common subsequence."""
    scores = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    texts_left, texts_right = ([normalize(item.word.word) for item in words] for words in (left, right))
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            score = _time_score(left[i], right[j]) if is_similar(texts_left[i], texts_right[j]) else 0.0
            with_match = score + scores[i + 1][j + 1] if score else 0.0
            scores[i][j] = max(with_match, scores[i + 1][j], scores[i][j + 1])
    path, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if scores[i][j] == scores[i + 1][j]:
            i += 1
        elif scores[i][j] == scores[i][j + 1]:
            j += 1
        else:
            path.append((i, j))
            i, j = i + 1, j + 1
    return path


def _time_score(one: TimedWord, other: TimedWord) -> float:
    """Return 1 for equal times, less for greater distances, and 0 beyond the tolerance."""
    distance = abs(midpoint(one.word) - midpoint(other.word)) / (one.tolerance + other.tolerance)
    return 1 - TIME_WEIGHT * distance if distance <= 1 else 0.0


def is_similar(one: str, other: str) -> bool:
    """Return True if two normalised words differ in a few letters at most."""
    return one == other or fuzz.ratio(one, other) >= MIN_SIMILARITY


def normalize(word: str) -> str:
    """Return the word in NFC, case-folded and without punctuation."""
    return _PUNCTUATION.sub("", unicodedata.normalize("NFC", word).casefold())


def midpoint(word: Word) -> float:
    return (word.start + word.end) / 2
