"""Bands and levels of priority, model names, object keys, errors."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.job import TOP_LEVEL, JobStatus, Priority, chunk_level, job_band
from core.domain.keys import job_prefixes, result_key, safe_name, upload_key, working_key
from core.domain.models import default_model, file_name, model_of_file, resolve
from core.domain.transcript import Segment, Word
from core.errors import ChunkTimeoutError, FileTooLargeError, SttError


@pytest.mark.parametrize(("unfinished", "band"), [(0, 2), (9, 2), (10, 1), (99, 1), (100, 0)])
def test_band_of_an_owner(unfinished: int, band: int) -> None:
    assert job_band(unfinished) == band


@pytest.mark.parametrize(("index", "band"), [(0, 2), (3, 2), (4, 1), (15, 1), (16, 0), (900, 0)])
def test_band_of_a_chunk(index: int, band: int) -> None:
    assert chunk_level(Priority.NORMAL, index, 2) == 3 + band
    assert chunk_level(Priority.NORMAL, index, 0) == 3


def test_high_priority_is_above_normal_and_below_the_top_level() -> None:
    """The bands of the owners make no difference."""
    lowest_high = chunk_level(Priority.HIGH, 900, job_band(500))
    assert chunk_level(Priority.LOW, 0, 2) < chunk_level(Priority.NORMAL, 900, 0)
    assert chunk_level(Priority.NORMAL, 0, 2) < lowest_high <= chunk_level(Priority.HIGH, 0, 2) < TOP_LEVEL


def test_terminal_states() -> None:
    assert [status for status in JobStatus if not status.terminal] == [JobStatus.PENDING, JobStatus.PROCESSING]


@pytest.mark.parametrize(
    ("requested", "language", "available", "resolved"),
    [
        ("medium", "vi", {"medium-q5_0", "small"}, "medium-q5_0"),
        ("medium", "vi", {"medium-q5_0", "medium"}, "medium"),
        ("medium", "en", {"medium.en-q5_0", "medium"}, "medium.en-q5_0"),
        ("medium", "vi", {"medium.en"}, None),
        ("large", "vi", {"large-v3-q5_0", "large-v2"}, "large-v3-q5_0"),
        ("medium-q5_0", "en", {"medium-q5_0"}, "medium-q5_0"),
        ("demo", "vi", {"demo-q5_0"}, "demo-q5_0"),
        ("../../etc/passwd", "en", {"demo-q5_0"}, None),
    ],
)
def test_model_names_are_resolved(requested: str, language: str, available: set[str], resolved: str | None) -> None:
    assert resolve(requested, language, available) == resolved


def test_the_default_model_is_medium_or_the_largest_or_the_demo() -> None:
    assert default_model("vi", {"demo-q5_0", "medium-q5_0", "large-v3"}) == "medium-q5_0"
    assert default_model("vi", {"demo-q5_0", "small", "base"}) == "small"
    assert default_model("vi", {"demo-q5_0"}) == "demo-q5_0"
    assert default_model("vi", set()) is None


def test_model_file_names() -> None:
    assert model_of_file(file_name("base-q5_0")) == "base-q5_0"
    assert model_of_file("readme.md") is None


@given(st.text(max_size=300))
def test_any_filename_is_made_safe(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert safe.isascii()
    assert "/" not in safe
    assert not safe.startswith(".")
    assert len(safe) <= 100


@pytest.mark.parametrize(
    ("given_name", "safe"),
    [
        ("../../x.mp3", "x.mp3"),
        ("Đường về.mp3", "Duong_ve.mp3"),
        ("...", "audio"),
        ("a b\n.wav", "a_b_.wav"),
        ("--x_", "x_"),
    ],
)
def test_safe_filenames_stay_readable(given_name: str, safe: str) -> None:
    assert safe_name(given_name) == safe


def test_object_keys_start_with_the_job_id() -> None:
    for key in (upload_key("j", "a.mp3"), working_key("j", 3), result_key("j")):
        assert key.startswith(job_prefixes("j"))


def test_object_keys_name_their_content() -> None:
    assert upload_key("j", "a b.mp3") == "uploads/j/a_b.mp3"
    assert working_key("j", 3) == "work/j/3.pcm"
    assert (result_key("j"), result_key("j", "txt")) == (
        "results/j/transcription.json",
        "results/j/transcription.txt",
    )


def test_segments_survive_a_round_trip_through_json() -> None:
    segment = Segment(1.5, 2.5, "xin chào", 0.8, (Word("xin", 1.5, 2.0, 0.9), Word("chào", 2.0, 2.5, 0.7)))
    assert Segment.from_json(json.loads(json.dumps(segment.to_json()))) == segment
    assert Segment.from_json({"start": 1.5, "end": 2.5, "text": "a", "confidence": 0.8}).words == ()


def _all(error: type[SttError]) -> list[type[SttError]]:
    return [error, *(deeper for subclass in error.__subclasses__() for deeper in _all(subclass))]


def test_every_error_has_both_languages() -> None:
    for error in _all(SttError):
        assert error.en
        assert error.vi
        assert error.en != error.vi
        assert 400 <= error.http_status < 600


def test_a_detail_is_added_to_the_english_text_only() -> None:
    error = FileTooLargeError("over 5 MB")
    assert (error.message(), error.message("vi")) == ("over 5 MB", FileTooLargeError.vi)
    assert ChunkTimeoutError().message() == ChunkTimeoutError.en
