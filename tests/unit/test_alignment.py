"""Word matching between the overlapping ends of two chunks."""

from __future__ import annotations

import unicodedata

import pytest

from core.domain.transcript import Word
from worker.alignment import TIME_TOLERANCE, TimedWord, is_similar, match_words, normalize

SHARED = (7.0, 10.0)


def timed_words(*words: tuple[str, float], tolerance: float = TIME_TOLERANCE) -> list[TimedWord]:
    """Return words of 0.4 s that start at the given times."""
    return [TimedWord(Word(text, at, at + 0.4, 0.9), 0, tolerance) for text, at in words]


def matches(left: list[TimedWord], right: list[TimedWord]) -> list[tuple[int, int]]:
    return [(pair.left, pair.right) for pair in match_words(left, right, *SHARED)]


def test_words_of_both_chunks_are_paired_despite_extra_words_between() -> None:
    left = timed_words(("a", 7.0), ("um", 7.5), ("b", 8.0), ("c", 8.5), ("b", 9.0), ("d", 9.5))
    right = timed_words(
        ("er", 6.8), ("a", 7.1), ("b", 8.1), ("oh", 8.3), ("ah", 8.4), ("c", 8.6), ("b", 9.1), ("d", 9.6)
    )
    assert matches(left, right) == [(0, 1), (2, 2), (3, 5), (4, 6), (5, 7)]
    assert matches(right, left) == [(1, 0), (2, 2), (5, 3), (6, 4), (7, 5)]


def test_the_time_of_a_pair_is_the_mean_of_both_centres() -> None:
    [pair] = match_words(timed_words(("a", 8.0)), timed_words(("a", 8.2)), *SHARED)
    assert pair.time == pytest.approx(8.3)


def test_a_match_a_second_apart_needs_an_adjacent_match() -> None:
    assert matches(timed_words(("a", 7.4)), timed_words(("a", 8.4))) == []
    assert matches(timed_words(("a", 7.4), ("b", 7.9)), timed_words(("a", 8.4), ("b", 8.9))) == [(0, 0), (1, 1)]
    assert (
        matches(timed_words(("a", 7.4), ("x", 7.9), ("b", 8.4)), timed_words(("a", 8.4), ("y", 8.9), ("b", 9.4))) == []
    )


def test_equal_words_beyond_the_time_tolerance_are_not_paired() -> None:
    assert matches(timed_words(("a", 7.4), ("b", 7.9)), timed_words(("a", 9.0), ("b", 9.5))) == []


def test_words_outside_the_overlap_are_not_paired() -> None:
    assert matches(timed_words(("a", 5.4), ("b", 5.8)), timed_words(("a", 6.7), ("b", 7.1))) == []
    assert matches(timed_words(("a", 9.5), ("b", 9.9)), timed_words(("a", 10.8), ("b", 11.2))) == []


def test_words_are_similar_if_one_letter_in_five_differs() -> None:
    assert is_similar(normalize("hello"), normalize("hallo"))
    assert is_similar(normalize("deliver"), normalize("delivers"))
    assert not is_similar(normalize("five"), normalize("hive"))


def test_comparison_ignores_case_punctuation_and_unicode_form() -> None:
    composed = "Thứ"
    decomposed = unicodedata.normalize("NFD", composed)
    assert normalize(f"“{decomposed}!”") == normalize(composed) == "thứ"
    assert normalize("Straße") == normalize("STRASSE")
