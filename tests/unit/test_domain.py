"""Priorities, model names, object keys."""

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
def test_bands_of_owners(unfinished: int, band: int) -> None:
    assert job_band(unfinished) == band


@pytest.mark.parametrize(("index", "band"), [(0, 2), (3, 2), (4, 1), (15, 1), (16, 0), (900, 0)])
def test_bands_of_chunks(index: int, band: int) -> None:
    assert chunk_level(Priority.NORMAL, index, 2) == 3 + band
    assert chunk_level(Priority.NORMAL, index, 0) == 3


def test_high_is_above_every_normal_and_below_the_top() -> None:
    """Whatever the bands of their owners."""
    lowest_high = chunk_level(Priority.HIGH, 900, job_band(500))
    assert chunk_level(Priority.LOW, 0, 2) < chunk_level(Priority.NORMAL, 900, 0)
    assert chunk_level(Priority.NORMAL, 0, 2) < lowest_high <= chunk_level(Priority.HIGH, 0, 2) < TOP_LEVEL


def test_terminal_states() -> None:
    assert [status for status in JobStatus if not status.terminal] == [JobStatus.PENDING, JobStatus.PROCESSING]


@pytest.mark.parametrize(
    ("asked", "language", "have", "found"),
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
def test_names_of_models(asked: str, language: str, have: set[str], found: str | None) -> None:
    assert resolve(asked, language, have) == found


def test_the_default_is_medium_else_the_largest_else_the_demo_model() -> None:
    assert default_model("vi", {"demo-q5_0", "medium-q5_0", "large-v3"}) == "medium-q5_0"
    assert default_model("vi", {"demo-q5_0", "small", "base"}) == "small"
    assert default_model("vi", {"demo-q5_0"}) == "demo-q5_0"
    assert default_model("vi", set()) is None


def test_files_of_models() -> None:
    assert model_of_file(file_name("base-q5_0")) == "base-q5_0"
    assert model_of_file("readme.md") is None


@given(st.text(max_size=300))
def test_any_name_is_safe(name: str) -> None:
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
def test_names_stay_readable(given_name: str, safe: str) -> None:
    assert safe_name(given_name) == safe


def test_keys_lie_under_their_job() -> None:
    for key in (upload_key("j", "a.mp3"), working_key("j", 3), result_key("j")):
        assert key.startswith(job_prefixes("j"))


def test_keys_name_what_lies_there() -> None:
    assert upload_key("j", "a b.mp3") == "uploads/j/a_b.mp3"
    assert working_key("j", 3) == "work/j/3.pcm"
    assert (result_key("j"), result_key("j", "txt")) == (
        "results/j/transcription.json",
        "results/j/transcription.txt",
    )


def test_segments_survive_the_database() -> None:
    segment = Segment(1.5, 2.5, "xin chào", 0.8, (Word("xin", 1.5, 2.0, 0.9), Word("chào", 2.0, 2.5, 0.7)))
    assert Segment.from_json(json.loads(json.dumps(segment.to_json()))) == segment
    assert Segment.from_json({"start": 1.5, "end": 2.5, "text": "a", "confidence": 0.8}).words == ()


def _all(error: type[SttError]) -> list[type[SttError]]:
    return [error, *(deeper for one in error.__subclasses__() for deeper in _all(one))]


def test_every_error_speaks_both_languages() -> None:
    for error in _all(SttError):
        assert error.en
        assert error.vi
        assert error.en != error.vi
        assert 400 <= error.http_status < 600


def test_a_detail_is_for_english_readers() -> None:
    error = FileTooLargeError("over 5 MB")
    assert (error.message(), error.message("vi")) == ("over 5 MB", FileTooLargeError.vi)
    assert ChunkTimeoutError().message() == ChunkTimeoutError.en
