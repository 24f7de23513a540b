"""Nothing twice, nothing lost: merging chunks whose words are known."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.job_options import MergeMethod
from core.domain.transcript import ChunkTranscript, Segment, Word
from worker.alignment import is_similar, normalize
from worker.merger import merge, segment_words


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
    chunks = [chunk(0, 0, 5, said(("no", 4.6))), chunk(1, 5, 9, said(("no", 5.1)))]
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
    assert merged_text(chunks, MergeMethod.SIMPLE) == "alpha beta gamma gamma delta epsilon"


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
    assert not any(item.segment.words for item in merge(chunks, MergeMethod.SMART)), "their times are guesses"


def test_words_without_times_of_their_own_may_lie_half_their_segment_away() -> None:
    def heard(first: float, second: float) -> str:
        left, right = (Segment(at, at + 2.0, "hm", 0.8) for at in (first, second))
        return merged_text([ChunkTranscript(0, 0, 10, (left,)), ChunkTranscript(1, 7, 17, (right,), 3.0)])

    assert heard(7.0, 8.6) == "hm"
    assert heard(6.0, 10.0) == "hm hm"


def test_times_never_run_backwards() -> None:
    chunks = [chunk(0, 0, 5, said(("a", 4.8))), chunk(1, 5, 9, said(("b", 4.5)))]
    starts = [item.segment.start for item in merge(chunks, MergeMethod.SMART)]
    assert starts == sorted(starts)


def test_no_segment_starts_before_the_recording() -> None:
    chunks = [chunk(0, 0, 5, said(("a", -0.2)))]
    [item] = merge(chunks, MergeMethod.SMART)
    assert (item.segment.start, item.segment.words[0].start) == (0.0, 0.0)
    [item] = merge([chunk(0, 0, 5, said(("a", 0.3)))], MergeMethod.SMART)
    assert (item.segment.start, item.segment.words[0].start) == (0.3, 0.3)


@pytest.mark.parametrize("method", list(MergeMethod))
def test_nothing_merges_to_nothing(method: MergeMethod) -> None:
    assert merge([], method) == []
    assert merge([chunk(0, 0, 5, []), chunk(1, 2, 9, [], 3)], method) == []


def test_words_alike() -> None:
    assert is_similar(normalize("Hello,"), normalize("hello"))
    assert is_similar(normalize("Thứ"), normalize("thứ"))
    assert not is_similar(normalize("one"), normalize("two"))


def test_evenly_spread_words_fill_their_segment() -> None:
    words = segment_words(Segment(2.0, 4.0, "ab abcd", 0.7))
    assert [(word.word, round(word.start, 2), round(word.end, 2)) for word in words] == [
        ("ab", 2.0, 2.67),
        ("abcd", 2.67, 4.0),
    ]
    assert {word.probability for word in words} == {0.7}


def test_repeated_words_that_both_chunks_heard_in_full_come_as_often_as_they_were_said() -> None:
    """A longer run of matches at shifted times must not win over a shorter one at the right times."""
    times = [6.0 + 0.4 * number for number in range(12)]
    early, late = (said(*(("no", at) for at in times if low <= at <= high)) for low, high in ((0, 9.6), (7, 20)))
    assert merged_text([chunk(0, 0, 10, early), chunk(1, 7, 17, late, overlap=3)]).split() == ["no"] * 12


@pytest.mark.parametrize(("early", "late"), [(8.5, 8.1), (8.1, 8.5)])
def test_one_word_whose_two_times_lie_on_both_sides_of_the_middle(early: float, late: float) -> None:
    chunks = [
        chunk(0, 0, 10, said(("alpha", 2), ("mid", early))),
        chunk(1, 7, 17, said(("mid", late), ("omega", 12)), overlap=3),
    ]
    assert merged_text(chunks) == "alpha mid omega"


def test_the_same_word_said_again_after_the_cut_is_no_duplicate() -> None:
    chunks = [chunk(0, 0, 10, said(("yes", 7.3))), chunk(1, 7, 17, said(("yes", 7.3), ("yes", 8.9)), overlap=3)]
    assert merged_text(chunks) == "yes yes"


@pytest.mark.parametrize("method", [MergeMethod.SMART, MergeMethod.SIMPLE])
@pytest.mark.parametrize("early", [said(("a", 1)), []])
def test_what_only_the_later_chunk_heard_stays(early: list[Word], method: MergeMethod) -> None:
    late = said(("b", 7.3), ("c", 8), ("d", 12))
    merged = merged_text([chunk(0, 0, 10, early), chunk(1, 7, 17, late, overlap=3)], method)
    assert merged.split() == [word.word for word in early + late]


def test_what_only_the_earlier_chunk_heard_stays() -> None:
    chunks = [chunk(0, 0, 10, said(("a", 1), ("b", 9))), chunk(1, 7, 17, said(("c", 14)), overlap=3)]
    assert merged_text(chunks) == "a b c"


def test_a_word_heard_differently_comes_once() -> None:
    chunks = [
        chunk(0, 0, 10, said(("alpha", 7.2), ("hive", 8.4), ("beta", 9.2))),
        chunk(1, 7, 17, said(("alpha", 7.2), ("five", 8.2), ("beta", 9.2), ("gamma", 11)), overlap=3),
    ]
    words = merged_text(chunks).split()
    assert [words[0], *words[2:]] == ["alpha", "beta", "gamma"]
    assert words[1] in ("hive", "five")


def test_what_only_one_chunk_heard_between_two_pairs_comes_from_the_one_with_more_words() -> None:
    more = said(("alpha", 7.2), ("one", 7.9), ("two", 8.3), ("three", 8.7), ("beta", 9.4))
    fewer = said(("alpha", 7.2), ("four", 8.0), ("five", 8.6), ("beta", 9.4))
    for early, late in ((more, fewer), (fewer, more)):
        merged = merged_text([chunk(0, 0, 10, early), chunk(1, 7, 17, late, overlap=3)])
        assert merged == "alpha one two three beta"


@pytest.mark.parametrize(
    ("early", "late", "merged"),
    [
        ([("x", 7.2), ("c", 9)], [("y", 7.3), ("c", 9)], "x c"),
        ([("a", 5), ("x", 7.2), ("c", 9)], [("y", 7.3), ("c", 9)], "a x c"),
        ([("a", 5), ("c", 9)], [("y", 7.3), ("c", 9)], "a y c"),
        ([("c", 7.5), ("x", 9)], [("c", 7.5), ("y", 9.2), ("d", 12)], "c y d"),
        ([("c", 7.5), ("x", 9)], [("c", 7.5), ("d", 12)], "c x d"),
    ],
)
def test_outside_the_pairs_the_chunk_decides_that_heard_it_from_within(
    early: list[tuple[str, float]], late: list[tuple[str, float]], merged: str
) -> None:
    """Before the first pair the earlier chunk, after the last one the later; the other where that heard nothing."""
    assert merged_text([chunk(0, 0, 10, said(*early)), chunk(1, 7, 17, said(*late), overlap=3)]) == merged


@pytest.mark.parametrize(("early", "late", "merged"), [(6.3, 7.3, "left end"), (9.3, 10.3, "right end")])
def test_a_word_beside_the_shared_stretch_may_lie_in_it(early: float, late: float, merged: str) -> None:
    """Its time may be off, so both chunks heard something there, and each side keeps its own half."""
    chunks = [
        chunk(0, 0, 10, said(("left", early))),
        chunk(1, 7, 17, said(("right", late), ("end", 14)), overlap=3),
    ]
    assert merged_text(chunks) == merged


def test_a_word_exactly_on_the_cut_comes_once() -> None:
    on_it = [Word("mid", 8.25, 8.75, 0.9)]
    chunks = [chunk(0, 0, 10, on_it), chunk(1, 7, 17, on_it + said(("end", 12)), overlap=3)]
    assert merged_text(chunks, MergeMethod.SIMPLE) == "mid end"


def test_an_overlap_of_less_than_a_second_counts() -> None:
    chunks = [
        chunk(0, 0, 10, said(("a", 8), ("b", 9.4))),
        chunk(1, 9.2, 19, said(("b", 9.4), ("c", 11)), overlap=0.8),
    ]
    assert merged_text(chunks) == "a b c"


def test_a_word_cut_off_at_the_end_of_a_chunk_gives_way_to_the_whole_one() -> None:
    chunks = [
        chunk(0, 0, 10, said(("the", 8.8), ("encyclo", 9.6))),
        chunk(1, 7, 17, said(("the", 8.8), ("encyclopaedia", 9.6), ("says", 10.9)), overlap=3),
    ]
    assert merged_text(chunks) == "the encyclopaedia says"


def test_while_the_chunk_before_is_missing_nothing_is_dropped() -> None:
    """The text so far of a running job: chunk 1 is not there yet."""
    chunks = [chunk(0, 0, 10, said(("a", 9.5))), chunk(2, 14, 24, said(("b", 14.2), ("c", 16)), overlap=3)]
    assert merged_text(chunks) == "a b c"


def test_words_are_never_compared_across_a_missing_chunk() -> None:
    """Words without times of their own may lie far off, so that those of chunks 0 and 2 could seem the same."""
    early, late = Segment(0, 8, "so be it", 0.8), Segment(10, 18, "be it then", 0.8)
    chunks = [ChunkTranscript(0, 0, 8, (early,)), ChunkTranscript(2, 10, 18, (late,), 3.0)]
    assert merged_text(chunks) == "so be it be it then"


def test_a_split_segment_keeps_its_confidence_and_gets_the_times_of_its_words() -> None:
    chunks = [
        chunk(0, 0, 10, said(("alpha", 7.1), ("beta", 9.1))),
        chunk(1, 7, 17, said(("alpha", 7.1), ("beta", 9.1), ("gamma", 12.0)), overlap=3),
    ]
    last = merge(chunks, MergeMethod.SMART)[-1]
    assert (last.chunk, last.segment.confidence, last.segment.start) == (1, 0.9, 9.1)
    assert [word.word for word in last.segment.words] == ["beta", "gamma"]


def test_segments_without_text_go() -> None:
    blank = ChunkTranscript(0, 0, 5, (Segment(0, 1, "a", 0.9), Segment(1, 2, " ", 0.9), Segment(2, 3, "b", 0.9)))
    assert merged_text([blank]) == "a b"


def test_overlapping_segments_both_give_way() -> None:
    chunks = [ChunkTranscript(0, 0, 9, (segment(said(("a", 1.0))), Segment(1.2, 3.0, "b", 0.9)))]
    one, other = (item.segment for item in merge(chunks, MergeMethod.SMART))
    assert one.end == other.start == pytest.approx(1.3)
    assert (one.words[0].start, one.words[0].end) == (one.start, one.end)


ANY_TIME = st.floats(-1, 40)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ANY_TIME, ANY_TIME), max_size=12), st.sampled_from(list(MergeMethod)))
def test_whatever_the_times_segments_come_one_after_another(
    times: list[tuple[float, float]], method: MergeMethod
) -> None:
    segments = tuple(Segment(start, end, f"w{n}", 0.5) for n, (start, end) in enumerate(times))
    chunks = [ChunkTranscript(0, 0, 20, segments[:6]), ChunkTranscript(1, 17, 40, segments[6:], 3.0)]
    edges = [edge for item in merge(chunks, method) for edge in (item.segment.start, item.segment.end)]
    assert edges == sorted(edges)


def _names() -> list[str]:
    """Words that no fuzzy match takes for one another."""
    return ["".join(letters) * 2 for letters in itertools.product("bdfgklmnprst", "aeiou", "vwxzj")]


def _windows(
    truth: list[Word], overlap: float, jitter: list[float], per_segment: int, with_words: bool = True
) -> list[ChunkTranscript]:
    """What 12 s windows that share `overlap` seconds hear of known words, each word's time off by a jitter."""
    noise = itertools.cycle(jitter)
    chunks: list[ChunkTranscript] = []
    start, length = 0.0, 12.0
    while not chunks or chunks[-1].end < truth[-1].end:
        inside = [word for word in truth if word.start >= start and word.end <= start + length]
        moved = [Word(w.word, w.start + (d := next(noise)), w.end + d, 0.9) for w in inside]
        groups = [moved[at : at + per_segment] for at in range(0, len(moved), per_segment)]
        segments = tuple(segment(group, with_words) for group in groups)
        chunks.append(ChunkTranscript(len(chunks), start, start + length, segments, overlap if chunks else 0.0))
        start += length - overlap
    return chunks


def _spoken(names: list[str], gaps: list[float]) -> list[Word]:
    """Words of 0.3 s with these pauses between them, over and over."""
    words, at = [], 0.0
    for name, gap in zip(names, itertools.cycle(gaps), strict=False):
        words.append(Word(name, at, at + 0.3, 0.9))
        at += 0.3 + gap
    return words


OVERLAPS = st.sampled_from([3.0, 5.0])


@settings(max_examples=200, deadline=None)
@given(
    st.integers(5, 120),
    st.lists(st.floats(0.1, 4), min_size=1, max_size=6),
    OVERLAPS,
    st.lists(st.floats(-0.3, 0.3), min_size=1, max_size=20),
    st.integers(1, 40),
)
def test_known_words_in_overlapping_chunks(
    count: int, gaps: list[float], overlap: float, jitter: list[float], per_segment: int
) -> None:
    """Distinct words on a time line: each comes once, in order, however the times are off and segments are cut."""
    truth = _spoken(_names()[:count], gaps)
    assert merged_text(_windows(truth, overlap, jitter, per_segment)).split() == [word.word for word in truth]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["one", "two", "no"]), min_size=5, max_size=100),
    OVERLAPS,
    st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=20),
)
def test_repeated_words_in_overlapping_chunks(names: list[str], overlap: float, jitter: list[float]) -> None:
    """Three words over and over, half a second apart: times tell them apart."""
    chunks = _windows(_spoken(names, [0.2]), overlap, jitter, 8)
    assert merged_text(chunks).split() == names


@settings(max_examples=200, deadline=None)
@given(st.integers(5, 120), st.lists(st.floats(0.1, 2), min_size=1, max_size=6), OVERLAPS, st.integers(2, 40))
def test_known_words_without_times_of_their_own(
    count: int, gaps: list[float], overlap: float, per_segment: int
) -> None:
    truth = _spoken(_names()[:count], gaps)
    chunks = _windows(truth, overlap, [0.0], per_segment, with_words=False)
    assert merged_text(chunks).split() == [word.word for word in truth]
