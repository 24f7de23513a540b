"""Merging chunks with known words: nothing is repeated, nothing is lost."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.job_options import MergeMethod
from core.domain.transcript import ChunkTranscript, Segment, Word
from worker.alignment import is_similar, normalize
from worker.merger import RunningMerge, merge, segment_words


def segment(words: list[Word], with_words: bool = True) -> Segment:
    text = " ".join(word.word for word in words)
    return Segment(words[0].start, words[-1].end, text, 0.9, tuple(words) if with_words else ())


def merged_text(chunks: list[ChunkTranscript], method: MergeMethod = MergeMethod.SMART) -> str:
    return " ".join(item.segment.text for item in merge(chunks, method))


def words_at(*words: tuple[str, float]) -> list[Word]:
    return [Word(text, at, at + 0.4, 0.9) for text, at in words]


def chunk(index: int, start: float, end: float, words: list[Word], overlap: float = 0.0) -> ChunkTranscript:
    return ChunkTranscript(index, start, end, (segment(words),) if words else (), overlap)


def test_chunks_without_overlap_are_concatenated() -> None:
    chunks = [chunk(0, 0, 5, words_at(("no", 4.6))), chunk(1, 5, 9, words_at(("no", 5.1)))]
    assert merged_text(chunks) == "no no"


def test_words_in_the_overlap_appear_once() -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("a", 1), ("b", 6), ("c", 8), ("d", 9))),
        chunk(1, 7, 17, words_at(("c", 8.1), ("d", 9.1), ("e", 12)), overlap=3),
    ]
    for method in (MergeMethod.SMART, MergeMethod.SIMPLE):
        assert merged_text(chunks, method) == "a b c d e"
    assert merged_text(chunks, MergeMethod.NONE) == "a b c d c d e"


def test_words_spoken_twice_are_kept() -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("one", 7.1), ("one", 7.8), ("two", 8.5), ("three", 9.2))),
        chunk(1, 7, 17, words_at(("one", 7.1), ("one", 7.8), ("two", 8.5), ("three", 9.2), ("one", 10.5)), overlap=3),
    ]
    assert merged_text(chunks) == "one one two three one"


def test_text_decides_if_times_disagree() -> None:
    """The later chunk is half a second late: by time alone, `delta` would appear twice or not at all."""
    chunks = [
        chunk(0, 0, 10, words_at(("alpha", 6.5), ("beta", 7.6), ("gamma", 8.2), ("delta", 8.8))),
        chunk(1, 7, 17, words_at(("beta", 8.1), ("gamma", 8.7), ("delta", 9.3), ("epsilon", 10)), overlap=3),
    ]
    assert merged_text(chunks) == "alpha beta gamma delta epsilon"
    assert merged_text(chunks, MergeMethod.SIMPLE) == "alpha beta gamma gamma delta epsilon"


def test_similar_words_match() -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("please", 7.2), ("deliver", 8), ("package", 8.9))),
        chunk(1, 7, 17, words_at(("Please,", 7.5), ("delivers", 8.3), ("package", 9.2), ("now", 11)), overlap=3),
    ]
    assert merged_text(chunks).split()[-1] == "now"
    assert len(merged_text(chunks).split()) == 4


def test_segments_without_word_times_are_split_by_length() -> None:
    left = Segment(6.0, 10.0, "one two three four", 0.8)
    right = Segment(7.0, 12.0, "two three four five", 0.8)
    chunks = [ChunkTranscript(0, 0, 10, (left,)), ChunkTranscript(1, 7, 17, (right,), 3.0)]
    assert merged_text(chunks) == "one two three four five"
    assert not any(item.segment.words for item in merge(chunks, MergeMethod.SMART)), (
        "estimated word times must not be kept"
    )


def test_estimated_word_times_have_a_tolerance_of_half_the_segment() -> None:
    def merge_segments(first: float, second: float) -> str:
        left, right = (Segment(at, at + 2.0, "hm", 0.8) for at in (first, second))
        return merged_text([ChunkTranscript(0, 0, 10, (left,)), ChunkTranscript(1, 7, 17, (right,), 3.0)])

    assert merge_segments(7.0, 8.6) == "hm"
    assert merge_segments(6.0, 10.0) == "hm hm"


def test_times_never_run_backwards() -> None:
    chunks = [chunk(0, 0, 5, words_at(("a", 4.8))), chunk(1, 5, 9, words_at(("b", 4.5)))]
    starts = [item.segment.start for item in merge(chunks, MergeMethod.SMART)]
    assert starts == sorted(starts)


def test_no_segment_starts_before_the_recording() -> None:
    chunks = [chunk(0, 0, 5, words_at(("a", -0.2)))]
    [item] = merge(chunks, MergeMethod.SMART)
    assert (item.segment.start, item.segment.words[0].start) == (0.0, 0.0)
    [item] = merge([chunk(0, 0, 5, words_at(("a", 0.3)))], MergeMethod.SMART)
    assert (item.segment.start, item.segment.words[0].start) == (0.3, 0.3)


@pytest.mark.parametrize("method", list(MergeMethod))
def test_nothing_merges_to_nothing(method: MergeMethod) -> None:
    assert merge([], method) == []
    assert merge([chunk(0, 0, 5, []), chunk(1, 2, 9, [], 3)], method) == []


def test_similarity_of_words() -> None:
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


def test_repeated_words_in_both_chunks_keep_their_count() -> None:
    """A longer run of matches at shifted times must not win over a shorter one at the right times."""
    times = [6.0 + 0.4 * number for number in range(12)]
    earlier, later = (words_at(*(("no", at) for at in times if low <= at <= high)) for low, high in ((0, 9.6), (7, 20)))
    assert merged_text([chunk(0, 0, 10, earlier), chunk(1, 7, 17, later, overlap=3)]).split() == ["no"] * 12


@pytest.mark.parametrize(("earlier", "later"), [(8.5, 8.1), (8.1, 8.5)])
def test_a_word_timed_on_both_sides_of_the_cut_appears_once(earlier: float, later: float) -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("alpha", 2), ("mid", earlier))),
        chunk(1, 7, 17, words_at(("mid", later), ("omega", 12)), overlap=3),
    ]
    assert merged_text(chunks) == "alpha mid omega"


def test_a_word_repeated_after_the_cut_is_kept() -> None:
    chunks = [chunk(0, 0, 10, words_at(("yes", 7.3))), chunk(1, 7, 17, words_at(("yes", 7.3), ("yes", 8.9)), overlap=3)]
    assert merged_text(chunks) == "yes yes"


@pytest.mark.parametrize("method", [MergeMethod.SMART, MergeMethod.SIMPLE])
@pytest.mark.parametrize("earlier", [words_at(("a", 1)), []])
def test_words_of_the_later_chunk_alone_are_kept(earlier: list[Word], method: MergeMethod) -> None:
    later = words_at(("b", 7.3), ("c", 8), ("d", 12))
    merged = merged_text([chunk(0, 0, 10, earlier), chunk(1, 7, 17, later, overlap=3)], method)
    assert merged.split() == [word.word for word in earlier + later]


def test_words_of_the_earlier_chunk_alone_are_kept() -> None:
    chunks = [chunk(0, 0, 10, words_at(("a", 1), ("b", 9))), chunk(1, 7, 17, words_at(("c", 14)), overlap=3)]
    assert merged_text(chunks) == "a b c"


def test_a_word_recognised_differently_appears_once() -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("alpha", 7.2), ("hive", 8.4), ("beta", 9.2))),
        chunk(1, 7, 17, words_at(("alpha", 7.2), ("five", 8.2), ("beta", 9.2), ("gamma", 11)), overlap=3),
    ]
    words = merged_text(chunks).split()
    assert [words[0], *words[2:]] == ["alpha", "beta", "gamma"]
    assert words[1] in ("hive", "five")


def test_the_chunk_with_more_words_decides_between_two_matches() -> None:
    more = words_at(("alpha", 7.2), ("one", 7.9), ("two", 8.3), ("three", 8.7), ("beta", 9.4))
    fewer = words_at(("alpha", 7.2), ("four", 8.0), ("five", 8.6), ("beta", 9.4))
    for earlier, later in ((more, fewer), (fewer, more)):
        merged = merged_text([chunk(0, 0, 10, earlier), chunk(1, 7, 17, later, overlap=3)])
        assert merged == "alpha one two three beta"


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        ([("x", 7.2), ("c", 9)], [("y", 7.3), ("c", 9)], "x c"),
        ([("a", 5), ("x", 7.2), ("c", 9)], [("y", 7.3), ("c", 9)], "a x c"),
        ([("a", 5), ("c", 9)], [("y", 7.3), ("c", 9)], "a y c"),
        ([("c", 7.5), ("x", 9)], [("c", 7.5), ("y", 9.2), ("d", 12)], "c y d"),
        ([("c", 7.5), ("x", 9)], [("c", 7.5), ("d", 12)], "c x d"),
    ],
)
def test_outside_the_matches_the_chunk_further_from_its_edge_decides(
    earlier: list[tuple[str, float]], later: list[tuple[str, float]], merged: str
) -> None:
    """Before the first match the earlier chunk decides, after the last one the later, unless it has no words there."""
    assert merged_text([chunk(0, 0, 10, words_at(*earlier)), chunk(1, 7, 17, words_at(*later), overlap=3)]) == merged


@pytest.mark.parametrize(("earlier", "later", "merged"), [(6.3, 7.3, "left end"), (9.3, 10.3, "right end")])
def test_a_word_next_to_the_overlap_may_belong_to_it(earlier: float, later: float, merged: str) -> None:
    """Word times are inexact, so both chunks have a word there, and each keeps its own half."""
    chunks = [
        chunk(0, 0, 10, words_at(("left", earlier))),
        chunk(1, 7, 17, words_at(("right", later), ("end", 14)), overlap=3),
    ]
    assert merged_text(chunks) == merged


def test_a_word_exactly_on_the_cut_appears_once() -> None:
    words = [Word("mid", 8.25, 8.75, 0.9)]
    chunks = [chunk(0, 0, 10, words), chunk(1, 7, 17, words + words_at(("end", 12)), overlap=3)]
    assert merged_text(chunks, MergeMethod.SIMPLE) == "mid end"


def test_an_overlap_below_one_second_is_merged() -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("a", 8), ("b", 9.4))),
        chunk(1, 9.2, 19, words_at(("b", 9.4), ("c", 11)), overlap=0.8),
    ]
    assert merged_text(chunks) == "a b c"


def test_a_truncated_word_is_replaced_by_the_complete_one() -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("the", 8.8), ("encyclo", 9.6))),
        chunk(1, 7, 17, words_at(("the", 8.8), ("encyclopaedia", 9.6), ("says", 10.9)), overlap=3),
    ]
    assert merged_text(chunks) == "the encyclopaedia says"


def test_nothing_is_dropped_after_a_missing_chunk() -> None:
    """The partial text of a running job: chunk 1 is not finished."""
    chunks = [chunk(0, 0, 10, words_at(("a", 9.5))), chunk(2, 14, 24, words_at(("b", 14.2), ("c", 16)), overlap=3)]
    assert merged_text(chunks) == "a b c"


def test_words_are_not_compared_across_a_missing_chunk() -> None:
    """Words without times may be far off, so those of chunks 0 and 2 could seem to match."""
    earlier, later = Segment(0, 8, "so be it", 0.8), Segment(10, 18, "be it then", 0.8)
    chunks = [ChunkTranscript(0, 0, 8, (earlier,)), ChunkTranscript(2, 10, 18, (later,), 3.0)]
    assert merged_text(chunks) == "so be it be it then"


def test_a_split_segment_keeps_its_confidence_and_word_times() -> None:
    chunks = [
        chunk(0, 0, 10, words_at(("alpha", 7.1), ("beta", 9.1))),
        chunk(1, 7, 17, words_at(("alpha", 7.1), ("beta", 9.1), ("gamma", 12.0)), overlap=3),
    ]
    last = merge(chunks, MergeMethod.SMART)[-1]
    assert (last.chunk, last.segment.confidence, last.segment.start) == (1, 0.9, 9.1)
    assert [word.word for word in last.segment.words] == ["beta", "gamma"]


def test_segments_without_text_are_dropped() -> None:
    blank = ChunkTranscript(0, 0, 5, (Segment(0, 1, "a", 0.9), Segment(1, 2, " ", 0.9), Segment(2, 3, "b", 0.9)))
    assert merged_text([blank]) == "a b"


def test_overlapping_segments_meet_in_the_middle() -> None:
    chunks = [ChunkTranscript(0, 0, 9, (segment(words_at(("a", 1.0))), Segment(1.2, 3.0, "b", 0.9)))]
    first, second = (item.segment for item in merge(chunks, MergeMethod.SMART))
    assert first.end == second.start == pytest.approx(1.3)
    assert (first.words[0].start, first.words[0].end) == (first.start, first.end)


ANY_TIME = st.floats(-1, 40)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(ANY_TIME, ANY_TIME), max_size=12), st.sampled_from(list(MergeMethod)))
def test_merged_segments_never_overlap(times: list[tuple[float, float]], method: MergeMethod) -> None:
    segments = tuple(Segment(start, end, f"w{n}", 0.5) for n, (start, end) in enumerate(times))
    chunks = [ChunkTranscript(0, 0, 20, segments[:6]), ChunkTranscript(1, 17, 40, segments[6:], 3.0)]
    edges = [edge for item in merge(chunks, method) for edge in (item.segment.start, item.segment.end)]
    assert edges == sorted(edges)


def _distinct_words() -> list[str]:
    """Return words that never match one another approximately."""
    return ["".join(syllable) * 2 for syllable in itertools.product("bdfgklmnprst", "aeiou", "vwxzj")]


def _windows(
    truth: list[Word], overlap: float, jitter: list[float], per_segment: int, with_words: bool = True
) -> list[ChunkTranscript]:
    """Split known words into windows of 12 s that share `overlap` seconds; jitter the words' times."""
    noise = itertools.cycle(jitter)
    chunks: list[ChunkTranscript] = []
    start, length = 0.0, 12.0
    while not chunks or chunks[-1].end < truth[-1].end:
        inside = [word for word in truth if word.start >= start and word.end <= start + length]
        shifted = [Word(w.word, w.start + (d := next(noise)), w.end + d, 0.9) for w in inside]
        groups = [shifted[at : at + per_segment] for at in range(0, len(shifted), per_segment)]
        segments = tuple(segment(group, with_words) for group in groups)
        chunks.append(ChunkTranscript(len(chunks), start, start + length, segments, overlap if chunks else 0.0))
        start += length - overlap
    return chunks


def _words_with_gaps(names: list[str], gaps: list[float]) -> list[Word]:
    """Return words of 0.3 s with the given pauses between them, repeated cyclically."""
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
    """Distinct words appear once and in order, however inexact their times are and however segments are split."""
    truth = _words_with_gaps(_distinct_words()[:count], gaps)
    assert merged_text(_windows(truth, overlap, jitter, per_segment)).split() == [word.word for word in truth]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["one", "two", "no"]), min_size=5, max_size=100),
    OVERLAPS,
    st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=20),
)
def test_repeated_words_in_overlapping_chunks(names: list[str], overlap: float, jitter: list[float]) -> None:
    """Three words repeated every half second are distinguished by time."""
    chunks = _windows(_words_with_gaps(names, [0.2]), overlap, jitter, 8)
    assert merged_text(chunks).split() == names


@settings(max_examples=200, deadline=None)
@given(st.integers(5, 120), st.lists(st.floats(0.1, 2), min_size=1, max_size=6), OVERLAPS, st.integers(2, 40))
def test_known_words_without_word_times(count: int, gaps: list[float], overlap: float, per_segment: int) -> None:
    truth = _words_with_gaps(_distinct_words()[:count], gaps)
    chunks = _windows(truth, overlap, [0.0], per_segment, with_words=False)
    assert merged_text(chunks).split() == [word.word for word in truth]


@given(
    st.lists(st.tuples(st.floats(0, 25), st.floats(0.2, 6)), min_size=1, max_size=30),
    st.integers(1, 8),
    OVERLAPS,
    st.sampled_from(list(MergeMethod)),
)
def test_chunks_merge_one_at_a_time_as_all_at_once(
    spoken: list[tuple[float, float]], count: int, overlap: float, method: MergeMethod
) -> None:
    chunks = []
    for index in range(count):
        start = index * 25.0
        times = sorted(spoken[index::count]) or [(1.0, 1.0)]
        words = [Word(f"w{index}-{n}", start + at, start + at + length, 0.9) for n, (at, length) in enumerate(times)]
        shared = overlap if index else 0.0
        chunks.append(ChunkTranscript(index, start, start + 25 + overlap, (segment(words),), shared))
    running = RunningMerge(method)
    merged = [
        item for one, after in zip(chunks, [*chunks[1:], None], strict=True) for item in running.extend(one, after)
    ]
    assert merged == merge(chunks, method)
