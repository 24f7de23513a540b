"""Which words two chunks both heard, and which are two."""

from __future__ import annotations

import unicodedata

import pytest

from core.domain.transcript import Word
from worker.alignment import TIME_TOLERANCE, TimedWord, is_similar, match_words, normalize

SHARED = (7.0, 10.0)


def heard(*words: tuple[str, float], slack: float = TIME_TOLERANCE) -> list[TimedWord]:
    """Words of 0.4 s, each at its time."""
    return [TimedWord(Word(text, at, at + 0.4, 0.9), 0, slack) for text, at in words]


def places(left: list[TimedWord], right: list[TimedWord]) -> list[tuple[int, int]]:
    return [(pair.left, pair.right) for pair in match_words(left, right, *SHARED)]


def test_every_word_heard_twice_is_paired_whatever_only_one_side_heard_between() -> None:
    left = heard(("a", 7.0), ("um", 7.5), ("b", 8.0), ("c", 8.5), ("b", 9.0), ("d", 9.5))
    right = heard(("er", 6.8), ("a", 7.1), ("b", 8.1), ("oh", 8.3), ("ah", 8.4), ("c", 8.6), ("b", 9.1), ("d", 9.6))
    assert places(left, right) == [(0, 1), (2, 2), (3, 5), (4, 6), (5, 7)]
    assert places(right, left) == [(1, 0), (2, 2), (5, 3), (6, 4), (7, 5)]


def test_a_pairs_time_is_the_mean_of_both_centres() -> None:
    [pair] = match_words(heard(("a", 8.0)), heard(("a", 8.2)), *SHARED)
    assert pair.time == pytest.approx(8.3)


def test_a_match_a_second_apart_counts_only_beside_another() -> None:
    assert places(heard(("a", 7.4)), heard(("a", 8.4))) == []
    assert places(heard(("a", 7.4), ("b", 7.9)), heard(("a", 8.4), ("b", 8.9))) == [(0, 0), (1, 1)]
    assert places(heard(("a", 7.4), ("x", 7.9), ("b", 8.4)), heard(("a", 8.4), ("y", 8.9), ("b", 9.4))) == []


def test_words_further_apart_than_their_times_may_be_off_are_two() -> None:
    assert places(heard(("a", 7.4), ("b", 7.9)), heard(("a", 9.0), ("b", 9.5))) == []


def test_words_that_lie_outside_the_shared_stretch_are_not_compared() -> None:
    assert places(heard(("a", 5.4), ("b", 5.8)), heard(("a", 6.7), ("b", 7.1))) == []
    assert places(heard(("a", 9.5), ("b", 9.9)), heard(("a", 10.8), ("b", 11.2))) == []


def test_one_letter_of_five_may_be_heard_differently() -> None:
    assert is_similar(normalize("hello"), normalize("hallo"))
    assert is_similar(normalize("deliver"), normalize("delivers"))
    assert not is_similar(normalize("five"), normalize("hive"))


def test_a_word_is_compared_without_case_punctuation_and_way_of_writing_its_accents() -> None:
    composed = "Thứ"
    decomposed = unicodedata.normalize("NFD", composed)
    assert normalize(f"“{decomposed}!”") == normalize(composed) == "thứ"
    assert normalize("Straße") == normalize("STRASSE")
