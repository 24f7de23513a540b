"""Nothing twice, nothing lost: merging chunks whose words are known."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import MergeMethod
from core.domain.transcript import ChunkTranscript, Segment, Word
from worker.merger import merge, same_word, words_of


def segment(words: list[Word], with_words: bool = True) -> Segment:
    text = " ".join(word.word for word in words)
    return Segment(words[0].start, words[-1].end, text, 0.9, tuple(words) if with_words else ())


def merged_text(chunks: list[ChunkTranscript], method: MergeMethod = MergeMethod.SMART) -> str:
    return " ".join(item.segment.text for item in merge(chunks, method))


def said(*words: tuple[str, float]) -> list[Word]:
    return [Word(text, at, at + 0.4, 0.9) for text, at in words]


def chunk(index: int, start: float, end: float, words: list[Word], overlap: float = 0.0) -> ChunkTranscript:
    return ChunkTranscript(index, start, end, (segment(words),) if words else (), overlap)


def test_cuts_in_silence_are_only_joined() -> None:
    chunks = [chunk(0, 0, 5, said(("no", 4.0))), chunk(1, 5, 9, said(("no", 5.1)))]
    assert merged_text(chunks) == "no no"


def test_the_overlaps_words_come_once() -> None:
    chunks = [
        chunk(0, 0, 10, said(("a", 1), ("b", 6), ("c", 8), ("d", 9))),
        chunk(1, 7, 17, said(("c", 8.1), ("d", 9.1), ("e", 12)), overlap=3),
    ]
    for method in (MergeMethod.SMART, MergeMethod.SIMPLE):
        assert merged_text(chunks, method) == "a b c d e"
    assert merged_text(chunks, MergeMethod.NONE) == "a b c d c d e"


def test_repeated_words_really_spoken_twice_stay() -> None:
    chunks = [
        chunk(0, 0, 10, said(("one", 7.1), ("one", 7.8), ("two", 8.5), ("three", 9.2))),
        chunk(1, 7, 17, said(("one", 7.1), ("one", 7.8), ("two", 8.5), ("three", 9.2), ("one", 10.5)), overlap=3),
    ]
    assert merged_text(chunks) == "one one two three one"


def test_text_decides_where_times_disagree() -> None:
    """The later chunk's times are half a second late: by time alone `delta` would come twice or not at all."""
    chunks = [
        chunk(0, 0, 10, said(("alpha", 6.5), ("beta", 7.6), ("gamma", 8.2), ("delta", 8.8))),
        chunk(1, 7, 17, said(("beta", 8.1), ("gamma", 8.7), ("delta", 9.3), ("epsilon", 10)), overlap=3),
    ]
    assert merged_text(chunks) == "alpha beta gamma delta epsilon"


def test_words_heard_a_little_differently_match() -> None:
    chunks = [
        chunk(0, 0, 10, said(("please", 7.2), ("deliver", 8), ("package", 8.9))),
        chunk(1, 7, 17, said(("Please,", 7.5), ("delivers", 8.3), ("package", 9.2), ("now", 11)), overlap=3),
    ]
    assert merged_text(chunks).split()[-1] == "now"
    assert len(merged_text(chunks).split()) == 4


def test_segments_without_word_times_are_split_by_their_letters() -> None:
    left = Segment(6.0, 10.0, "one two three four", 0.8)
    right = Segment(7.0, 12.0, "two three four five", 0.8)
    chunks = [ChunkTranscript(0, 0, 10, (left,)), ChunkTranscript(1, 7, 17, (right,), 3.0)]
    assert merged_text(chunks) == "one two three four five"


def test_times_never_run_backwards() -> None:
    chunks = [chunk(0, 0, 5, said(("a", 4.8))), chunk(1, 5, 9, said(("b", 4.5)))]
    starts = [item.segment.start for item in merge(chunks, MergeMethod.SMART)]
    assert starts == sorted(starts)


@pytest.mark.parametrize("method", list(MergeMethod))
def test_nothing_merges_to_nothing(method: MergeMethod) -> None:
    assert merge([], method) == []
    assert merge([chunk(0, 0, 5, []), chunk(1, 2, 9, [], 3)], method) == []


def test_words_alike() -> None:
    assert same_word("Hello,", "hello")
    assert same_word("Thứ", "thứ")
    assert not same_word("one", "two")


def test_evenly_spread_words_fill_their_segment() -> None:
    words = words_of(Segment(2.0, 4.0, "ab abcd", 0.7))
    assert [(word.word, round(word.start, 2), round(word.end, 2)) for word in words] == [
        ("ab", 2.0, 2.67),
        ("abcd", 2.67, 4.0),
    ]


def _names() -> list[str]:
    """Words that no fuzzy match takes for one another."""
    return ["".join(letters) * 2 for letters in itertools.product("bdfgklmnprst", "aeiou", "vwxzj")]


@settings(max_examples=150, deadline=None)
@given(
    st.integers(20, 150),
    st.sampled_from([3.0, 5.0]),
    st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=20),
    st.booleans(),
)
def test_known_words_in_overlapping_chunks(count: int, overlap: float, jitter: list[float], shuffled: bool) -> None:
    """Distinct words on a time line, cut into windows that share `overlap` seconds, their times jittered."""
    names = _names()[:count] if not shuffled else _names()[::-1][:count]
    truth = [Word(name, index * 0.6, index * 0.6 + 0.5, 0.9) for index, name in enumerate(names)]
    noise = itertools.cycle(jitter)
    chunks: list[ChunkTranscript] = []
    start, length = 0.0, 12.0
    end_of_all = truth[-1].end
    while not chunks or chunks[-1].end < end_of_all:
        inside = [word for word in truth if word.start >= start and word.end <= start + length]
        moved = [Word(w.word, w.start + (d := next(noise)), w.end + d, 0.9) for w in inside]
        shared = overlap if chunks else 0.0
        chunks.append(ChunkTranscript(len(chunks), start, start + length, (segment(moved),) if moved else (), shared))
        start += length - overlap
    assert merged_text(chunks).split() == names
