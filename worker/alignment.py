"""Which words two overlapping chunks both heard: an alignment in order, by text and by time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz import fuzz

from core.domain.transcript import Word

SIMILAR = 80.0
"""Per cent of likeness from which two words count as the same."""
SLACK = 0.75
"""Seconds that the engine's own word times may be off."""
TIME_WEIGHT = 0.9
"""Share of a pair's worth that goes with the largest difference in time: without it, repeated words slip by one."""
SURE = 1 - TIME_WEIGHT / 2
"""Worth from which a match counts alone: half the difference in time that is allowed at all."""
_PUNCTUATION = re.compile(r"[^\w]+")


@dataclass(frozen=True, slots=True)
class Piece:
    """One word of a segment (`source`, its place in the chunk); `slack`: seconds its times may be off."""

    word: Word
    source: int
    slack: float = SLACK


@dataclass(frozen=True, slots=True)
class Pair:
    """left and right: places of the same word in both chunks; time: the mean of its two centres, in seconds."""

    left: int
    right: int
    time: float


def paired(left: Sequence[Piece], right: Sequence[Piece], start: float, end: float) -> list[Pair]:
    """The words that both heard between `start` and `end` seconds, in order, each at most once.

    Of all alignments in order the one with the most matches wins, matches at the same time counting most. A match whose
    neighbours do not match counts only where the times agree.
    """
    first_left = next((i for i, piece in enumerate(left) if piece.word.end > start - piece.slack), len(left))
    last_right = next((j for j, piece in enumerate(right) if piece.word.start > end + piece.slack), len(right))
    found = _aligned(left[first_left:], right[:last_right])
    known = [(first_left + i, j) for i, j in found]
    return [
        Pair(i, j, (centre(left[i].word) + centre(right[j].word)) / 2)
        for i, j in known
        if _worth(left[i], right[j]) >= SURE or (i - 1, j - 1) in known or (i + 1, j + 1) in known
    ]


def _aligned(left: Sequence[Piece], right: Sequence[Piece]) -> list[tuple[int, int]]:
    """Places of the best alignment (longest common subsequence, weighted)."""
    worth = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    texts_left, texts_right = ([plain(piece.word.word) for piece in side] for side in (left, right))
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            match = _worth(left[i], right[j]) if _alike(texts_left[i], texts_right[j]) else 0.0
            paired_up = match + worth[i + 1][j + 1] if match else 0.0
            worth[i][j] = max(paired_up, worth[i + 1][j], worth[i][j + 1])
    return _path(left, right, worth)


def _path(left: Sequence[Piece], right: Sequence[Piece], worth: Sequence[Sequence[float]]) -> list[tuple[int, int]]:
    """Walk the table from its start: what is not skipped for free is a match."""
    found, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if worth[i][j] == worth[i + 1][j]:
            i += 1
        elif worth[i][j] == worth[i][j + 1]:
            j += 1
        else:
            found.append((i, j))
            i, j = i + 1, j + 1
    return found


def _worth(one: Piece, other: Piece) -> float:
    """0 where the times rule the match out, up to 1 where they are the same."""
    apart = abs(centre(one.word) - centre(other.word)) / (one.slack + other.slack)
    return 1 - TIME_WEIGHT * apart if apart <= 1 else 0.0


def same_word(one: str, other: str) -> bool:
    """Alike but for case, punctuation and a letter heard differently."""
    return _alike(plain(one), plain(other))


def _alike(one: str, other: str) -> bool:
    return one == other or fuzz.ratio(one, other) >= SIMILAR


def plain(word: str) -> str:
    return _PUNCTUATION.sub("", unicodedata.normalize("NFC", word).casefold())


def centre(word: Word) -> float:
    return (word.start + word.end) / 2
