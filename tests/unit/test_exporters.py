"""All export formats, read back by third-party parsers."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
from datetime import UTC, datetime

import pytest
import srt
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.job_options import MergeMethod
from core.domain.result import Result
from core.domain.transcript import ChunkTranscript, Segment, Word
from worker.exporters import formats
from worker.exporters.cues import MAX_TEXT, clock, cues
from worker.result import JobMetadata, build_result

FACTS = JobMetadata(
    job_id="j",
    timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    language="vi",
    detected_language="vi",
    model="demo-q5_0",
    file_sha256="0" * 64,
    options={},
    duration_seconds=10.0,
    download_seconds=0.1,
    decode_seconds=0.2,
    total_seconds=3.0,
)


def build(*segments: Segment) -> Result:
    return build_result(FACTS, [ChunkTranscript(0, 0.0, 10.0, segments, seconds=2.0)], MergeMethod.SMART)


VIETNAMESE = build(
    Segment(0.0, 1.5, "Xin chào, tôi tên là Mai.", 0.9),
    Segment(2.0, 3.25, "Hôm nay trời đẹp.", 0.8),
    Segment(6.0, 7.0, "Hẹn gặp lại!", 0.7),
)


def exported(name: str, result: Result = VIETNAMESE) -> str:
    return formats()[name].export(result).decode()


def test_the_available_formats() -> None:
    assert sorted(formats()) == ["json", "srt", "tsv", "txt", "vtt"]
    assert all(kind.format == name for name, kind in formats().items())


def test_srt_golden() -> None:
    assert exported("srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nXin chào, tôi tên là Mai.\n\n"
        "2\n00:00:02,000 --> 00:00:03,250\nHôm nay trời đẹp.\n\n"
        "3\n00:00:06,000 --> 00:00:07,000\nHẹn gặp lại!\n\n"
    )
    assert [cue.content for cue in srt.parse(exported("srt"))] == [s.text for s in VIETNAMESE.segments]


def test_vtt_golden() -> None:
    assert exported("vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nXin chào, tôi tên là Mai.\n\n")
    assert [cue.text for cue in webvtt.from_string(exported("vtt")).captions] == [s.text for s in VIETNAMESE.segments]


def test_tsv_golden() -> None:
    assert exported("tsv").splitlines()[:2] == ["start\tend\ttext", "0\t1500\tXin chào, tôi tên là Mai."]
    rows = list(csv.DictReader(io.StringIO(exported("tsv")), delimiter="\t"))
    assert [(int(row["start"]), row["text"]) for row in rows][1] == (2000, "Hôm nay trời đẹp.")


def test_cues_of_a_split_segment_have_word_times() -> None:
    words = (Word("so", 1.0, 1.5, 0.9), Word("then", 9.0, 9.5, 0.9))
    found_cues = cues(build(Segment(1.0, 9.5, "so then", 0.9, words)))
    assert [(cue.start, cue.end, cue.text) for cue in found_cues] == [(1000, 1500, "so"), (9000, 9500, "then")]


def test_txt_starts_a_line_after_a_long_pause() -> None:
    assert exported("txt") == "Xin chào, tôi tên là Mai. Hôm nay trời đẹp.\nHẹn gặp lại!\n"


def test_json_is_the_unchanged_result() -> None:
    data = json.loads(exported("json"))
    assert Result.from_json(data) == VIETNAMESE
    assert "words" not in data["segments"][0]


@pytest.mark.parametrize(
    ("name", "expected"), [("srt", ""), ("vtt", "WEBVTT\n"), ("txt", ""), ("tsv", "start\tend\ttext\n")]
)
def test_results_without_speech(name: str, expected: str) -> None:
    assert exported(name, build()) == expected


def test_long_segments_are_split_into_readable_cues() -> None:
    words = tuple(Word(f"word{n}", n * 0.5, n * 0.5 + 0.4, 0.9) for n in range(60))
    long_result = build(Segment(0.0, 30.0, " ".join(word.word for word in words), 0.9, words))
    found_cues = list(cues(long_result))
    assert len(found_cues) > 3
    assert all(len(cue.text) <= MAX_TEXT and cue.end - cue.start <= 7500 for cue in found_cues)
    assert " ".join(cue.text for cue in found_cues) == long_result.text


def test_words_survive_a_round_trip() -> None:
    spoken = build(Segment(0.0, 1.0, "một hai", 0.9, (Word("một", 0.0, 0.4, 0.8), Word("hai", 0.5, 1.0, 0.7))))
    assert Result.from_json(json.loads(exported("json", spoken))) == spoken


def test_a_cue_lasts_at_most_seven_seconds() -> None:
    (cue,) = cues(build(Segment(1.0, 29.0, "Hello", 0.9)))
    assert (cue.start, cue.end) == (1000, 8000)


def test_cues_of_empty_segments_have_a_minimum_length() -> None:
    found_cues = list(cues(build(*(Segment(1.0, 1.0, text, 0.9) for text in "abc"))))
    assert [(cue.start, cue.end) for cue in found_cues] == [(1000, 1040), (1040, 1080), (1080, 1120)]


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(0, "00:00:00,000"), (3_661_001, "01:01:01,001"), (360_000_000, "100:00:00,000")]
)
def test_timestamp_format(milliseconds: int, shown: str) -> None:
    assert clock(milliseconds, ",") == shown


ARBITRARY_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=120)
ROWS = st.lists(st.tuples(ARBITRARY_TEXT, st.floats(0, 500), st.floats(0, 20), st.booleans()), max_size=8)


def arbitrary_result(rows: list[tuple[str, float, float, bool]]) -> Result:
    """Build a result from arbitrary texts and times, some with words in arbitrary order."""
    segments = []
    for text, start, length, with_words in sorted(rows, key=lambda row: row[1]):
        pieces = text.split() if with_words else []
        words = tuple(Word(part, start + n % 3, start + length, 0.5) for n, part in enumerate(pieces))
        segments.append(Segment(start, start + length, text, 0.5, words))
    return build(*segments)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_arbitrary_results_give_valid_subtitles(rows: list[tuple[str, float, float, bool]]) -> None:
    result = arbitrary_result(rows)
    parsed = list(srt.parse(exported("srt", result)))
    listed = list(cues(result))
    assert len(parsed) == len(listed)
    assert all(0 < (cue.end - cue.start).total_seconds() <= 7 for cue in parsed)
    assert all(first.end <= second.start for first, second in itertools.pairwise(parsed))
    captions = webvtt.from_string(exported("vtt", result)).captions
    assert [html.unescape(caption.raw_text) for caption in captions] == [cue.text for cue in listed]


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_arbitrary_text_stays_in_its_tsv_row(rows: list[tuple[str, float, float, bool]]) -> None:
    result = arbitrary_result(rows)
    table = list(csv.reader(io.StringIO(exported("tsv", result), newline="\n"), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert table[1:] == [[str(round(s.start * 1000)), str(round(s.end * 1000)), s.text] for s in result.segments]


@settings(max_examples=100, deadline=None)
@given(ROWS)
def test_plain_text_contains_every_word(rows: list[tuple[str, float, float, bool]]) -> None:
    result = arbitrary_result(rows)
    assert exported("txt", result).split() == result.text.split()
    assert exported("txt", result).endswith("\n") == bool(result.segments)


def test_markup_is_escaped_in_vtt() -> None:
    text = exported("vtt", build(Segment(0, 1, "a < b & c --> d", 0.9)))
    assert "a &lt; b &amp; c --&gt; d" in text


def test_the_same_rows_give_the_same_bytes() -> None:
    copies = [Segment(s.start, s.end, s.text, s.confidence) for s in VIETNAMESE.segments]
    assert exported("json") == exported("json", build(*copies))


def test_computed_figures() -> None:
    assert VIETNAMESE.word_count == 13
    assert VIETNAMESE.character_count == len(VIETNAMESE.text)
    assert VIETNAMESE.confidence == pytest.approx((0.9 * 6 + 0.8 * 4 + 0.7 * 3) / 13, abs=1e-4)
    assert VIETNAMESE.timings.real_time_factor == 0.2
    assert (build().confidence, build().text) == (0.0, "")
