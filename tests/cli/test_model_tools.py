"""`stt models import`, `quantize` and `verify`: the real program, as a pipe and in a terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.program import in_terminal, piped
from tests.model_files import demo, write_ctranslate2, write_huggingface, write_tiny
from tests.speech import MODEL, ROOT

SAMPLE = (ROOT / "assets" / "samples" / "hello.en.txt").read_text().strip()


@pytest.mark.speech
def test_a_folder_is_imported_quantised_verified_and_removed(tmp_path: Path) -> None:
    source = write_huggingface(tmp_path / "whisper-mine", demo())
    imported = piped("models", "import", str(source), folder=tmp_path, status=0)
    assert imported.output == "whisper-mine\n"
    for text in ("writing", "checking every value", "transcribing the samples", f"heard (en): {SAMPLE}"):
        assert text in imported.errors
    made = piped("models", "quantize", "whisper-mine", "q8_0", "--as", "small", "--json", folder=tmp_path, status=0)
    row = json.loads(made.output)
    assert (row["name"], row["heard"]["en"]) == ("small", SAMPLE)
    assert piped("models", "verify", "small", folder=tmp_path, status=0).output == "small\n"
    shown = in_terminal("models", "quantize", "whisper-mine", "q8_0", "--as", "base", folder=tmp_path, status=0).output
    assert "100%" in shown
    assert shown.rstrip().endswith("base")
    assert f"source: import of {source}" in piped("models", "show", "whisper-mine", folder=tmp_path, status=0).output
    taken = piped("models", "pull", "small", folder=tmp_path, status=1, HF_ENDPOINT="http://127.0.0.1:9")
    assert "MODEL_FILE_IN_THE_WAY" in taken.errors, "a published name does not make it a published file"
    folder = tmp_path / "data" / "models"
    assert (folder / "ggml-whisper-mine.heads.json").exists()
    assert piped("models", "rm", "small", "base", folder=tmp_path, status=0).output == "small\nbase\n"
    assert piped("models", "rm", "whisper-mine", folder=tmp_path, status=0).output == "whisper-mine\n"
    assert [path.name for path in folder.iterdir()] == [".pull"]


@pytest.mark.speech
def test_a_kept_folder_is_listed_shown_verified_and_removed(tmp_path: Path) -> None:
    source = write_ctranslate2(tmp_path / "faster-whisper-mine", demo())
    imported = piped("models", "import", str(source), "--keep", folder=tmp_path, status=0)
    assert imported.output == "mine\n"
    kept = tmp_path / "data" / "models" / "mine"
    listed = piped("models", "list", "--installed", "--json", folder=tmp_path, status=0).output.splitlines()
    [row] = [row for row in map(json.loads, listed) if row["name"] == "mine"]
    assert (row["format"], row["path"], row["state"]) == ("ctranslate2", str(kept), "installed")
    assert row["bytes"] == sum(path.stat().st_size for path in kept.iterdir())
    assert f"source: import of {source}" in in_terminal("models", "show", "mine", folder=tmp_path, status=0).output
    assert piped("models", "verify", "mine", folder=tmp_path, status=0).output == "mine\n"
    (kept / "notes.txt").write_text("put there by hand")
    assert "MODEL_NOT_MANAGED" in piped("models", "rm", "mine", folder=tmp_path, status=1).errors
    (kept / "notes.txt").unlink()
    data = bytearray((kept / "model.bin").read_bytes())
    data[-2000] ^= 1
    state = (kept / "model.bin").stat()
    (kept / "model.bin").write_bytes(data)
    os.utime(kept / "model.bin", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert "MODEL_CHECKSUM_MISMATCH" in piped("models", "verify", "mine", folder=tmp_path, status=1).errors
    assert in_terminal("models", "rm", "mine", folder=tmp_path, status=0).output == "mine\r\n"
    assert [path.name for path in kept.parent.iterdir() if path.name != ".openvino"] == [".pull"]
    assert "MODEL_NOT_INSTALLED" in piped("models", "rm", "mine", folder=tmp_path, status=1).errors


@pytest.mark.speech
def test_a_terminal_shows_a_bar(tmp_path: Path) -> None:
    run = in_terminal("models", "import", str(MODEL), "--as", "mine", folder=tmp_path)
    assert run.status == 0
    assert "transcribing the samples" in run.output
    assert "100%" in run.output
    assert run.output.rstrip().endswith("mine")
    smaller = in_terminal("models", "quantize", "mine", "q4_0", folder=tmp_path, status=1).output
    assert "MODEL_UNSUPPORTED" in smaller, "it is quantised already"
    assert in_terminal("models", "verify", "mine", folder=tmp_path, status=0).output.rstrip().endswith("mine")


def test_bad_files_are_refused_with_the_reason(tmp_path: Path) -> None:
    cut, size = tmp_path / "ggml-cut.bin", MODEL.stat().st_size
    cut.write_bytes(MODEL.read_bytes()[:1_000_000])
    refused = piped("models", "import", str(cut), folder=tmp_path, status=1)
    assert refused.output == ""
    assert f"MODEL_DAMAGED: The model ggml-cut.bin has 1000000 bytes, but its tensors need {size}." in refused.errors
    assert "cần" in piped("models", "import", str(cut), folder=tmp_path, status=1, LC_ALL="vi_VN.UTF-8").errors
    assert "MODEL_MISSING" in piped("models", "import", "none", folder=tmp_path, status=1).errors
    assert "MODEL_UNSUPPORTED" in piped("models", "quantize", str(MODEL), folder=tmp_path, status=1).errors
    assert "MODEL_MISSING" in piped("models", "quantize", "none", folder=tmp_path, status=1).errors


def test_verify_finds_values_that_are_no_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)
    path = write_tiny(folder / "ggml-x.bin")
    assert piped("models", "verify", "x", folder=tmp_path, status=0).output == "x\n"
    data = bytearray(path.read_bytes())
    data[-4:] = b"\0\0\xc0\x7f"
    path.write_bytes(data)
    assert "MODEL_DAMAGED" in piped("models", "verify", "x", folder=tmp_path, status=1).errors
