"""Commands for operators, as a pipe and in a terminal: dlq, migrate, demo, bench, keys, and the separate processes."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.program import PROGRAM, Run, Terminal, environment, in_terminal, piped
from tests.e2e import service as services
from tests.e2e.service import ROOT, Service
from tests.servers.base import free_port, get, wait_until
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

SAMPLE = ROOT / "assets" / "samples" / "hello.en.mp3"
WAYS = {"pipe": piped, "terminal": in_terminal}
READY = {"consumer": "consumer is ready", "scheduler": "scheduler is ready", "api": "Application startup complete"}
SHARED = ("DATABASE", "BROKER", "RABBITMQ", "STORAGE", "MINIO", "ALLOW")
"""Beginnings of the settings that all processes of a service share."""


def both(*words: str, folder: Path, status: int = 0, **variables: str) -> list[Run]:
    """Run a command that changes nothing in both ways."""
    return [run(*words, folder=folder, status=status, **variables) for run in WAYS.values()]


@pytest.mark.parametrize("way", WAYS)
def test_migrate_creates_the_schema_once(way: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert "The database has the newest schema." in WAYS[way]("migrate", folder=tmp_path, status=0).output
    assert (tmp_path / "data" / "stt.db").stat().st_mode & 0o077 == 0
    assert "cấu trúc mới nhất" in WAYS[way]("migrate", "--lang", "vi", folder=tmp_path, status=0).output


@pytest.mark.parametrize("way", WAYS)
def test_migrate_without_its_server(way: str, tmp_path: Path) -> None:
    run = WAYS[way]("migrate", folder=tmp_path, status=3, DATABASE_URL="postgresql://stt:a-secret@127.0.0.1:9/stt")
    assert "Traceback" not in run.output + run.errors
    assert "a-secret" not in run.output + run.errors


@pytest.mark.speech
def test_the_demo_in_a_terminal(tmp_path: Path) -> None:
    """As a pipe: `tests/documents/test_documents.py`."""
    shown = in_terminal("demo", folder=tmp_path, status=0).output
    assert "100%" in shown
    assert shown.count("COMPLETED") == 2
    assert "Where is the new contract?" in shown


@pytest.mark.speech
def test_bench_in_a_terminal(tmp_path: Path) -> None:
    """As a pipe: `tests/cli/test_program.py`."""
    shown = in_terminal("bench", "demo-q5_0", folder=tmp_path, status=0).output
    assert "trying whisper_cpp_wheel" in shown
    assert "chosen" in shown


@pytest.mark.parametrize("way", WAYS)
def test_keys(way: str, tmp_path: Path) -> None:
    run = WAYS[way]
    piped("migrate", folder=tmp_path, status=0)
    created = run("keys", "create", "--name", "mine", "--days", "2", folder=tmp_path, status=0)
    assert "key: stt_" in created.output
    assert "shown this once" in created.errors
    secret = created.output.split("webhook secret: ")[1].split()[0]
    owner = created.output.split("owner: ")[1].split()[0]
    assert run("keys", "webhook-secret", owner, folder=tmp_path, status=0).output.strip() == secret
    assert "revoked" in run("keys", "revoke", owner, folder=tmp_path, status=0).output
    assert "KEY_NOT_FOUND" in run("keys", "revoke", owner, folder=tmp_path, status=1).errors


@pytest.mark.servers
@pytest.mark.speech
@pytest.mark.parametrize("way", WAYS)
def test_dead_letters(way: str, tmp_path: Path, real_service: Service) -> None:
    """A job that failed is listed, shown, replayed, fails again, and is purged."""
    run = WAYS[way]
    stores = {name: value for name, value in real_service.environment.items() if name.startswith(SHARED)}
    stores |= {"COLUMNS": "300"}
    path = tmp_path / "text.mp3"
    path.write_bytes(b"no sound at all " * 1000)
    job_id = real_service.upload(path)
    assert real_service.wait(job_id)["status"] == "FAILED"

    def listed() -> bool:
        return job_id in piped("dlq", "list", folder=tmp_path, status=0, **stores).output

    wait_until(listed, "the dead letter is listed", 30)
    assert job_id in run("dlq", "list", folder=tmp_path, status=0, **stores).output
    assert "INVALID_AUDIO" in run("dlq", "show", job_id, folder=tmp_path, status=0, **stores).output
    shown = piped("dlq", "show", job_id, "--json", folder=tmp_path, status=0, **stores).output
    assert json.loads(shown)["job"] == job_id
    assert "1 reopened" in run("dlq", "replay", job_id, folder=tmp_path, status=0, **stores).output
    wait_until(listed, "the job has failed again", 60)
    assert "1 dead letters removed" in run("dlq", "purge", job_id, folder=tmp_path, status=0, **stores).output
    for words in (("show", job_id), ("replay", job_id), ("purge", "nonsense")):
        missing = run("dlq", *words, folder=tmp_path, status=1, **stores)
        assert "DEAD_LETTER_NOT_FOUND" in missing.errors
    assert real_service.status(job_id)["status"] == "FAILED"


@contextlib.contextmanager
def process_in_terminal(kind: str, folder: Path, variables: dict[str, str]) -> Iterator[None]:
    with Terminal(kind, folder=folder, variables=variables) as terminal:
        terminal.wait_for(READY[kind])
        yield
        terminal.interrupt()
        assert "Traceback" not in terminal.end(0).output


@contextlib.contextmanager
def process_in_pipe(kind: str, folder: Path, variables: dict[str, str]) -> Iterator[None]:
    log = folder / f"{kind}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*PROGRAM, kind], env=environment(folder, variables), cwd=folder, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: READY[kind] in log.read_text(), f"the {kind} is ready", 60)
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM), log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


@pytest.mark.servers
@pytest.mark.speech
@pytest.mark.parametrize("process", [process_in_terminal, process_in_pipe])
def test_the_separate_processes(
    process: Callable[[str, Path, dict[str, str]], contextlib.AbstractContextManager[None]],
    tmp_path: Path,
    shared_postgres: Postgres,
    shared_rabbitmq: RabbitMQ,
    shared_minio: Minio,
) -> None:
    """`stt api`, `stt consumer` and `stt scheduler` together transcribe a recording."""
    port = free_port()
    variables = services.stores_of(shared_postgres, shared_rabbitmq, shared_minio) | {
        "API_PORT": str(port),
        "API_WORKERS": "1",
        "CONSUMER_METRICS_PORT": "0",
        "SCHEDULER_METRICS_PORT": "0",
    }
    assert "newest schema" in piped("migrate", folder=tmp_path, status=0, **variables).output
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        for kind in ("scheduler", "consumer", "api"):
            stack.enter_context(process(kind, tmp_path, variables))
        wait_until(lambda: get(f"{url}/health", 5).json()["status"] == "healthy", "the service is healthy", 60)
        text = piped("transcribe", str(SAMPLE), "--output_dir", "out", "--server", url, folder=tmp_path, status=0)
        assert "Where is the new contract?" in text.output


@pytest.mark.parametrize("kind", ["api", "consumer", "scheduler"])
def test_a_separate_process_needs_servers(kind: str, tmp_path: Path) -> None:
    for run in both(kind, folder=tmp_path, status=2):
        assert "BROKER: memory is a queue inside one process" in run.errors


@pytest.mark.speech
def test_serve_as_a_pipe(tmp_path: Path) -> None:
    """In a terminal: `tests/cli/test_jobs.py`."""
    call = [*PROGRAM, "serve", "--port", "0"]
    process = subprocess.Popen(call, env=environment(tmp_path), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("async-stt is ready" in line for line in process.stderr)
        assert "none" not in piped("jobs", "list", folder=tmp_path, status=0).output
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
