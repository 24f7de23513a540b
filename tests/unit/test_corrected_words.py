"""Times of the words of a corrected segment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.corrections import cleaned_text, timed_words
from core.domain.result import ResultSegment
from tests.integration.completed import segment

HEARD = segment(0, "one two three four", 10.0)


def times(text: str, heard: ResultSegment = HEARD) -> list[tuple[str, float, float]]:
    return [(word.word, word.start, word.end) for word in timed_words(heard, text)]


def test_unchanged_words_keep_their_times_and_probabilities() -> None:
    assert times("One, two THREE four!") == [
        ("One,", 10.0, 10.5),
        ("two", 10.5, 11.0),
        ("THREE", 11.0, 11.5),
        ("four!", 11.5, 12.0),
    ]
    assert {word.probability for word in timed_words(HEARD, "one two")} == {0.9}
    assert timed_words(HEARD, "one zwei three four")[1].probability == 1.0


def test_new_words_share_the_time_of_those_they_replace() -> None:
    assert times("one aa bb four") == [
        ("one", 10.0, 10.5),
        ("aa", 10.5, 11.0),
        ("bb", 11.0, 11.5),
        ("four", 11.5, 12.0),
    ]
    assert times("aaa b") == [("aaa", 10.0, 11.5), ("b", 11.5, 12.0)]
    assert times("") == []


def test_a_segment_without_word_times_gets_none() -> None:
    assert timed_words(ResultSegment(0, 0, 0.0, 5.0, "one two", 0.5), "one three") == ()


@given(st.text("abc .,", max_size=40), st.text("abc .,", max_size=40))
def test_words_are_those_of_the_text_in_order_and_within_the_segment(before: str, after: str) -> None:
    heard = segment(0, before or "a", 3.0)
    words = timed_words(heard, cleaned_text(after)) if heard.words else ()
    if heard.words:
        assert [word.word for word in words] == after.split()
    for word in words:
        assert heard.start <= word.start <= word.end <= heard.end
    starts = [word.start for word in words]
    assert starts == sorted(starts)


@pytest.mark.parametrize("text", ["a\0", "\x85x\x9b", "\ud800", "\uffff"])
def test_characters_that_no_transcript_has(text: str) -> None:
    with pytest.raises(ValueError, match="control"):
        cleaned_text(text)
