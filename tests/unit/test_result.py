"""Results of jobs: figures, keys of the file, and reproducible bytes."""

from __future__ import annotations

import itertools
import json
import time
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.job_options import MergeMethod
from core.domain.result import Result
from core.domain.transcript import ChunkTranscript, Segment, Word
from worker.result import JobMetadata, build_result, clean, confidence

FACTS = JobMetadata(
    job_id="5f0c",
    timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    language="auto",
    detected_language="vi",
    model="demo-q5_0",
    file_sha256="ab" * 32,
    options={"prompt": "Mai", "chunk_strategy": "hybrid"},
    duration_seconds=20.0,
    download_seconds=0.25,
    decode_seconds=0.5,
    total_seconds=6.125,
)
WORDS = (Word("xin", 0.0, 0.5, 0.9), Word("chào", 0.5, 1.0, 0.7))
CHUNKS = (
    ChunkTranscript(
        0, 0.0, 10.0, (Segment(0.0, 1.0, " xin chào ", 0.8, WORDS),), attempts=2, seconds=3.0, engine="b 1"
    ),
    ChunkTranscript(1, 10.0, 20.0, (Segment(12.0, 14.0, "tạm biệt nhé", 0.6),), seconds=1.0, engine="a 2"),
)


def build(*chunks: ChunkTranscript, facts: JobMetadata = FACTS) -> Result:
    return build_result(facts, chunks, MergeMethod.SMART)


def test_the_file_has_the_documented_keys_in_order() -> None:
    data = build(*CHUNKS).to_json()
    contract = (
        "job_id, timestamp, status, language, detected_language, model, duration_seconds, text, word_count, "
        "character_count, confidence, segments, chunks, timings"
    )
    assert ", ".join(data) == contract
    assert list(data["model"]) == ["name", "file_sha256", "engine_version", "options"]
    assert list(data["segments"][0]) == ["id", "chunk", "start", "end", "text", "confidence", "words"]
    assert list(data["segments"][0]["words"][0]) == ["word", "start", "end", "probability"]
    assert list(data["chunks"][0]) == ["index", "start", "end", "attempts", "seconds"]
    assert list(data["timings"]) == ["download", "decode", "chunks", "total", "real_time_factor"]


def test_the_engines_of_all_chunks_are_named_once() -> None:
    assert build(*CHUNKS, *CHUNKS).model.engine_version == "a 2; b 1"
    assert build(ChunkTranscript(0, 0.0, 1.0, ())).model.engine_version == ""


def test_words_are_omitted_if_there_are_none() -> None:
    assert ["words" in segment for segment in build(*CHUNKS).to_json()["segments"]] == [True, False]


def test_computed_figures() -> None:
    result = build(*CHUNKS)
    assert result.text == "xin chào tạm biệt nhé"
    assert (result.word_count, result.character_count) == (5, 21)
    assert result.confidence == pytest.approx((0.8 * 2 + 0.6 * 3) / 5)
    assert (result.timings.chunks, result.timings.real_time_factor) == (4.0, 0.2)
    assert (result.timings.download, result.timings.decode, result.timings.total) == (0.25, 0.5, 6.125)
    assert [(segment.id, segment.chunk) for segment in result.segments] == [(0, 0), (1, 1)]
    assert [(chunk.attempts, chunk.seconds) for chunk in result.chunks] == [(2, 3.0), (1, 1.0)]


def test_a_result_without_speech() -> None:
    result = build(facts=replace(FACTS, duration_seconds=0.0))
    assert (result.status, result.text, result.word_count, result.character_count) == ("COMPLETED", "", 0, 0)
    assert (result.confidence, result.timings.real_time_factor, result.segments) == (0.0, 0.0, ())
    assert confidence([]) == 0.0


def test_the_file_contains_no_null() -> None:
    assert b"null" not in build(*CHUNKS).to_bytes()
    assert b"null" not in build().to_bytes()


def test_the_same_rows_give_the_same_bytes() -> None:
    """The order of the stored options and the time zone of the timestamp make no difference."""
    options = dict(reversed(FACTS.options.items()))
    hanoi = FACTS.timestamp.astimezone(timezone(timedelta(hours=7)))
    rebuilt = build(*CHUNKS, facts=replace(FACTS, options=options, timestamp=hanoi))
    assert rebuilt.to_bytes() == build(*CHUNKS).to_bytes()
    assert rebuilt.timestamp == "2026-01-02T03:04:05+00:00"


def test_the_timestamp_is_utc_in_any_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as context:
        context.setenv("TZ", "Asia/Ho_Chi_Minh")
        time.tzset()
        assert build(*CHUNKS).timestamp == "2026-01-02T03:04:05+00:00"
    time.tzset()


def test_text_is_normalised_to_nfc() -> None:
    decomposed = unicodedata.normalize("NFD", "Tiếng Việt")
    word = Word(decomposed, 0.0, 1.0, 0.9)
    result = build(ChunkTranscript(0, 0, 2, (Segment(0.0, 1.0, decomposed, 0.9, (word,)),)))
    assert result.text == result.segments[0].words[0].word == "Tiếng Việt"
    assert unicodedata.is_normalized("NFC", result.to_bytes().decode())
    assert result.character_count == 10


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [(" a\tb\nc ", "a b c"), ("a\x00b\x1bc", "a b c"), ("a\u2028b", "a b"), ("e\u0301", "é"), ("\n", "")],
)
def test_text_is_cleaned(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_times_are_rounded_to_milliseconds() -> None:
    word = Word("a", 0.123456, 0.98765, 0.5)
    (segment,) = build(ChunkTranscript(0, 0, 2, (Segment(0.123456, 0.98765, "a", 0.123456, (word,)),))).segments
    assert (segment.start, segment.end, segment.confidence) == (0.123, 0.988, 0.1235)
    assert (segment.words[0].start, segment.words[0].end) == (0.123, 0.988)


def test_durations_are_rounded_to_milliseconds() -> None:
    exact = replace(
        FACTS, duration_seconds=12.34567, download_seconds=0.12345, decode_seconds=0.45678, total_seconds=3.98765
    )
    result = build(ChunkTranscript(0, 0, 12, (), seconds=1.23456), facts=exact)
    assert (result.duration_seconds, result.chunks[0].seconds) == (12.346, 1.235)
    timings = result.timings
    assert (timings.download, timings.decode, timings.chunks, timings.total) == (0.123, 0.457, 1.235, 3.988)
    assert timings.real_time_factor == 0.1


ROWS = st.lists(st.tuples(st.text(max_size=40), st.floats(0, 100), st.floats(0, 9), st.floats(0, 1)), max_size=8)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_arbitrary_results_survive_a_round_trip(rows: list[tuple[str, float, float, float]]) -> None:
    segments = tuple(Segment(start, start + length, text, sure) for text, start, length, sure in rows)
    result = build(ChunkTranscript(0, 0.0, 110.0, segments))
    assert Result.from_json(json.loads(result.to_bytes())) == result
    assert result.text == " ".join(segment.text for segment in result.segments)
    assert result.word_count == len(result.text.split())
    assert all(segment.text for segment in result.segments)
    assert 0 <= result.confidence <= 1
    assert all(first.end <= second.start for first, second in itertools.pairwise(result.segments))
