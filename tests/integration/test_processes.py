"""Start of processes: incompatible settings, and permissions of files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from internal import process
from internal.process import announced_as_ready, settings_or_exit
from tests.e2e import service as services
from tests.servers.base import wait_until

pytestmark = pytest.mark.usefixtures("restored_logging")
KINDS = ("api", "consumer", "scheduler")


@pytest.fixture(autouse=True)
def _nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("BROKER", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_separate_processes_refuse_an_in_memory_queue(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as system_exit:
        settings_or_exit(kind)
    stderr = capsys.readouterr().err
    assert system_exit.value.code == 2
    assert all(word in stderr for word in ("BROKER", "cmd/embedded", "make run", "RABBITMQ_URL"))


@pytest.mark.parametrize("words", [["cmd/api/main.py"], ["-m", "internal.cli", "api"]], ids=["cmd", "stt"])
def test_the_program_refuses_an_in_memory_queue(tmp_path: Path, words: list[str]) -> None:
    environment = services.settings(tmp_path, 0)
    call = [sys.executable, *words]
    completed = subprocess.run(call, env=environment, cwd=services.ROOT, capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert "BROKER" in completed.stderr


@pytest.mark.parametrize("kind", [*KINDS, "embedded"])
def test_several_processes_on_local_stores_are_warned(
    kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BROKER", "rabbitmq")
    monkeypatch.setenv("RABBITMQ_URL", "amqp://stt:a-long-one@127.0.0.1/")
    settings_or_exit(kind)
    assert capsys.readouterr().err.count("every process has to run on this machine") == (2 if kind in KINDS else 0)


def test_permissions_of_older_files_are_restricted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "objects").mkdir(parents=True)
    (data / "stt.db").write_bytes(b"")
    (data / "stt.db").chmod(0o644)
    (data / "objects").chmod(0o755)
    settings_or_exit("embedded")
    assert (data / "stt.db").stat().st_mode & 0o777 == 0o600
    assert (data / "objects").stat().st_mode & 0o777 == 0o700


def test_written_files_have_private_permissions(tmp_path: Path, sample: Path) -> None:
    before = os.umask(0o022)
    try:
        with services.embedded(tmp_path, LOG_FILE=str(tmp_path / "logs" / "stt.log")) as service:
            service.upload(sample)
            service.client.post("/api/v1/uploads", json={"filename": "a.wav"})
            created = [path for name in ("data", "logs", "tmp") for path in (tmp_path / name).rglob("*")]
            modes = {path: path.stat().st_mode & 0o777 for path in created if path.exists() and not path.is_symlink()}
    finally:
        os.umask(before)
    names = {path.name for path in modes}
    assert {"stt.db", "secret.key", "objects", "uploads", "hello.en.mp3"} <= names
    assert {path: oct(mode) for path, mode in modes.items() if mode & 0o077} == {}


async def test_the_ready_file_is_touched_while_the_event_loop_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "READY_INTERVAL", 0.01)
    path = tmp_path / "ready"
    async with asyncio.timeout(20), announced_as_ready(path):
        while not path.exists():
            await asyncio.sleep(0.01)
        os.utime(path, (0, 0))
        while path.stat().st_mtime == 0:
            await asyncio.sleep(0.01)
    os.utime(path, (0, 0))
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "ready file"]


async def test_an_unwritable_ready_file_ends_no_process(tmp_path: Path) -> None:
    async with announced_as_ready(tmp_path / "missing" / "ready"):
        await asyncio.sleep(0)


def test_the_ready_file_of_an_earlier_process_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "ready"
    stale.touch()
    monkeypatch.setenv("READY_FILE", str(stale))
    settings_or_exit("embedded")
    assert not stale.exists()


def test_a_service_writes_its_ready_file_once_it_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "ready"
    with services.embedded(tmp_path, READY_FILE=str(path)):
        wait_until(path.exists, "the ready file")
