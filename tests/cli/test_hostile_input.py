"""Inputs that nobody intends: the program refuses them with a code, and neither hangs nor writes elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.program import piped
from tests.e2e.service import ROOT, Service
from tests.model_files import demo, write_ctranslate2, write_huggingface

SAMPLE = ROOT / "assets" / "samples" / "hello.en.mp3"
RECORD = ".stt-transcripts.jsonl"


@pytest.fixture
def server(embedded_service: Service) -> dict[str, str]:
    return {"STT_SERVER": embedded_service.url}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["/dev/zero"], "RECORDING_NOT_FOUND"),
        (["/dev/tty"], "RECORDING_NOT_FOUND"),
        (["http://[::1"], "RECORDING_NOT_FOUND"),
        (["https://media.example.org:port/a.mp3", "--server", "http://[::1"], "INVALID_SERVER"),
    ],
)
def test_no_recordings(words: list[str], code: str, tmp_path: Path) -> None:
    run = piped("transcribe", *words, folder=tmp_path, status=2)
    assert code in run.errors
    assert "Traceback" not in run.errors


@pytest.mark.speech
@pytest.mark.parametrize("words", [["--initial_prompt", b"\xff"], ["--model", b"\xff"]])
def test_arguments_that_are_no_text(words: list[str | bytes], tmp_path: Path, server: dict[str, str]) -> None:
    run = piped("transcribe", str(SAMPLE), "--output_dir", "out", *words, folder=tmp_path, status=2, **server)
    assert "is not valid UTF-8" in run.errors
    assert "\\udcff" in run.errors


@pytest.mark.speech
def test_ids_that_are_no_text(tmp_path: Path, server: dict[str, str]) -> None:
    for word in ("show", "watch", "cancel", "rm"):
        run = piped("jobs", word, b"\xff\x1b[31m", folder=tmp_path, status=2, **server)
        assert "is not valid UTF-8" in run.errors
        assert "\x1b" not in run.errors


@pytest.mark.speech
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_the_record_of_a_folder_from_somebody_else(kind: str, tmp_path: Path, server: dict[str, str]) -> None:
    """Nothing is appended to the file that a link names, and a pipe does not block."""
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    record = tmp_path / "theirs" / RECORD
    record.parent.mkdir()
    shutil.copy(SAMPLE, record.parent / "a.mp3")
    if kind == "link":
        record.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(record)
    else:
        record.mkdir()
    run = piped("transcribe", "theirs", folder=tmp_path, status=1, **server)
    assert "OUTPUT_NOT_WRITABLE" in run.errors
    assert victim.read_text() == "mine\n"
    assert (record.parent / "a.txt").exists()


@pytest.mark.speech
def test_a_record_that_lies(tmp_path: Path, server: dict[str, str]) -> None:
    """It can name no file of another folder, and one line that is no JSON does not hide the others."""
    (tmp_path / "secret").write_text("mine")
    shutil.copy(SAMPLE, tmp_path / "a.mp3")
    lines = [
        "[" * 100_000,
        json.dumps({"digest": "x", "outputs": {"txt": {"name": "../secret"}}, "file": "a.mp3"}),
        json.dumps({"digest": ["x"], "outputs": {"txt": "a"}}),
        json.dumps({"digest": "y", "outputs": {"txt": {"name": 5, "sha256": None}}, "file": "a.mp3"}),
    ]
    (tmp_path / RECORD).write_text("\n".join(lines) + "\n\xff\n")
    assert "Where is the new contract?" in piped("transcribe", "a.mp3", folder=tmp_path, status=0, **server).output
    assert "done before" in piped("transcribe", "a.mp3", folder=tmp_path, status=0, **server).errors


@pytest.mark.speech
def test_a_name_that_leaves_no_room_for_the_transcripts(tmp_path: Path, embedded_service: Service) -> None:
    """It is refused before the upload, not after the transcription."""
    name = "a" * 251 + ".mp3"
    shutil.copy(SAMPLE, tmp_path / name)
    before = embedded_service.client.get("/api/v1/jobs?limit=1").json()
    words = ["--output_format", "json", "--server", embedded_service.url]
    assert "OUTPUT_NOT_WRITABLE" in piped("transcribe", name, *words, folder=tmp_path, status=1).errors
    assert embedded_service.client.get("/api/v1/jobs?limit=1").json() == before


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("ctranslate2", "config.json"),
        ("ctranslate2", "vocabulary.json"),
        ("huggingface", "vocab.json"),
        ("huggingface", "generation_config.json"),
    ],
)
@pytest.mark.parametrize("planted", ["pipe", "device"])
def test_a_model_folder_with_a_part_that_is_no_file(kind: str, part: str, planted: str, tmp_path: Path) -> None:
    write = {"ctranslate2": write_ctranslate2, "huggingface": write_huggingface}[kind]
    folder = write(tmp_path / "theirs", demo())
    (folder / part).unlink(missing_ok=True)
    if planted == "pipe":
        os.mkfifo(folder / part)
    else:
        (folder / part).symlink_to("/dev/zero")
    run = piped("models", "import", "theirs", "--as", "../x", folder=tmp_path, status=None)
    assert run.status in (1, 2)
    assert "Traceback" not in run.errors
    assert not list((tmp_path / "data").rglob("*.bin"))


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/null", "/", "pipe", "loop"])
def test_sources_of_an_import_that_are_no_models(source: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    run = piped("models", "import", source, folder=tmp_path, status=1)
    assert "MODEL_" in run.errors
    assert "Traceback" not in run.errors
