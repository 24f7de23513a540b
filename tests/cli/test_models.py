"""`stt models`: the real program, as a pipe and in a terminal, with a hub of the tests' own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Run, Terminal, in_terminal, piped
from tests.e2e.service import ROOT
from tests.hub import server as hub_server
from tests.hub.server import FakeHub

CONTENT = (ROOT / "assets" / "model" / "ggml-demo-q5_0.bin").read_bytes()
REFERENCE = "me/repo:ggml-mine.bin"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with hub_server.fake_hub() as hub:
        hub.add("ggml-mine.bin", CONTENT, "/me/repo/resolve/main/")
        yield hub


def run(hub: FakeHub, folder: Path, *words: str, status: int = 0, **variables: str) -> Run:
    variables = {"HF_ENDPOINT": hub.url} | variables
    return piped("models", *words, folder=folder, data=b"", status=status, **variables)


def models_dir(folder: Path) -> Path:
    return folder / "data" / "models"


def rows(text: str) -> dict[str, Any]:
    return {row["name"]: row for row in map(json.loads, text.splitlines())}


def test_a_model_is_pulled_listed_checked_and_removed(hub: FakeHub, tmp_path: Path) -> None:
    pulled = run(hub, tmp_path, "pull", REFERENCE)
    assert pulled.output == "mine\n"
    assert "mine: " in pulled.errors
    assert (models_dir(tmp_path) / "ggml-mine.bin").read_bytes() == CONTENT
    assert rows(run(hub, tmp_path, "list", "--installed", "--json").output)["mine"]["bytes"] == len(CONTENT)
    assert run(hub, tmp_path, "verify").output == "mine\n"
    shown = run(hub, tmp_path, "show", "mine").output
    assert f"sha256: {hashlib.sha256(CONTENT).hexdigest()}" in shown
    assert f"source: {REFERENCE}" in shown
    assert run(hub, tmp_path, "rm", "mine").output == "mine\n"
    assert not (models_dir(tmp_path) / "ggml-mine.bin").exists()
    assert "MODEL_NOT_INSTALLED" in run(hub, tmp_path, "rm", "mine", status=1).errors


def test_the_list_names_the_table_the_recipes_and_the_demo_model(hub: FakeHub, tmp_path: Path) -> None:
    listed = rows(run(hub, tmp_path, "list", "--json").output)
    assert listed["demo-q5_0"]["state"] == "installed"
    assert listed["large-v3-turbo-q5_0"] | {"state": "available", "mb": 574} == listed["large-v3-turbo-q5_0"]
    assert listed["phowhisper-small"]["repository"] == "vinai/PhoWhisper-small"
    assert "large-v3-turbo-q5_0" in in_terminal("models", "list", folder=tmp_path, status=0).output
    header, *lines = run(hub, tmp_path, "list").output.splitlines()
    assert header.split("\t")[:3] == ["name", "state", "MB"]
    assert len(lines) == len(listed)
    assert "ggerganov/whisper.cpp" in run(hub, tmp_path, "show", "large").output
    assert not hub.seen


def test_a_terminal_shows_a_bar(hub: FakeHub, tmp_path: Path) -> None:
    hub.storage_days = [hub_server.stall(1_000_000)]
    with Terminal("models", "pull", REFERENCE, folder=tmp_path, variables={"HF_ENDPOINT": hub.url}) as terminal:
        terminal.wait_for("1.0/7.6 MB")
        terminal.wait_for("13%")
        terminal.interrupt()
        assert "continues it" in terminal.end(130).output
    assert not (models_dir(tmp_path) / ".pull" / "lock").exists()
    assert in_terminal("models", "pull", REFERENCE, folder=tmp_path, status=0, HF_ENDPOINT=hub.url).output.endswith(
        "mine\r\n"
    )
    assert hub.requests("storage")[-1].headers["range"] == "bytes=1000000-"


def test_a_killed_pull_is_continued(hub: FakeHub, tmp_path: Path) -> None:
    hub.storage_days = [hub_server.stall(1_000_000)]
    with Terminal("models", "pull", REFERENCE, folder=tmp_path, variables={"HF_ENDPOINT": hub.url}) as terminal:
        terminal.wait_for("1.0/7.6 MB")
    assert (models_dir(tmp_path) / ".pull" / "lock").exists()
    run(hub, tmp_path, "pull", REFERENCE)
    assert (models_dir(tmp_path) / "ggml-mine.bin").read_bytes() == CONTENT
    assert not (models_dir(tmp_path) / ".pull" / "lock").exists()
    assert "range" in hub.requests("storage")[-1].headers


@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        (["pull", "huge"], 2, "MODEL_NAME_INVALID"),
        (["pull", "a/b:../../etc/passwd"], 2, "MODEL_NAME_INVALID"),
        (["pull", "a/b:\x1b[31mx.bin"], 2, "MODEL_NAME_INVALID"),
        (["pull", "phowhisper-small"], 2, "stt models import vinai/PhoWhisper-small"),
        (["pull", "me/repo:none.bin"], 1, "HUB_NOT_FOUND"),
        (["pull", REFERENCE, "--as", "../x"], 2, "MODEL_NAME_INVALID"),
        (["pull", REFERENCE, "tiny", "--as", "x"], 2, "--as needs exactly one model"),
        (["show", "../x"], 2, "MODEL_NAME_INVALID"),
        (["rm", "../../x"], 2, "MODEL_NAME_INVALID"),
        (["verify", "tiny"], 1, "MODEL_NOT_INSTALLED"),
        (["pull"], 2, "Missing argument"),
    ],
)
def test_errors_have_a_status_and_a_code(
    hub: FakeHub, tmp_path: Path, words: list[str], status: int, code: str
) -> None:
    failed = run(hub, tmp_path, *words, status=status)
    assert code in failed.errors
    assert "Traceback" not in failed.errors
    assert "\x1b" not in failed.errors
    assert failed.output == ""


@pytest.mark.parametrize(
    ("day", "status", "code"), [(401, 4, "HUB_UNAUTHORIZED"), (403, 4, "HUB_FORBIDDEN"), (404, 1, "HUB_NOT_FOUND")]
)
def test_refusals_of_the_hub(hub: FakeHub, tmp_path: Path, day: int, status: int, code: str) -> None:
    hub.hub_days = [hub_server.respond(day)]
    failed = run(hub, tmp_path, "pull", REFERENCE, "--json", status=status)
    assert json.loads(failed.output)["code"] == code
    assert code in failed.errors


def test_offline_the_program_ends_at_once(hub: FakeHub, tmp_path: Path) -> None:
    failed = run(hub, tmp_path, "pull", "tiny", status=3, HF_ENDPOINT="http://127.0.0.1:1", LANG="vi_VN.UTF-8")
    assert "HUB_UNREACHABLE: Không kết nối được tới kho mô hình" in failed.errors
    assert "HF_ENDPOINT" in run(hub, tmp_path, "pull", "tiny", status=2, HF_ENDPOINT="hub.example").errors


def test_some_of_many_fail(hub: FakeHub, tmp_path: Path) -> None:
    failed = run(hub, tmp_path, "pull", REFERENCE, "me/repo:none.bin", "huge", status=1)
    assert failed.output == "mine\n"
    assert "HUB_NOT_FOUND" in failed.errors
    assert "MODEL_NAME_INVALID" in failed.errors


def test_no_secret_is_printed(hub: FakeHub, tmp_path: Path) -> None:
    hub.token = "hf_rosebud"
    hub.storage_days = [hub_server.respond(418)]
    failed = run(hub, tmp_path, "pull", REFERENCE, status=1, HF_TOKEN="hf_rosebud", LOG_LEVEL="DEBUG")
    assert "rosebud" not in failed.errors
    assert "Signature" not in failed.errors
