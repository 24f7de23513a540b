"""The separate processes of docs/operations.md, from `make services` to a replayed dead letter, as the page says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.blocks import Block, blocks
from tests.documents.replay import copied_environment
from tests.e2e.service import ROOT, Service, settings
from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import free_port, wait_until

pytestmark = [
    pytest.mark.servers,
    pytest.mark.speech,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not (postgres.programs_folder() and minio.program_path() and rabbitmq.DEBIAN_PROGRAM.exists()),
        reason="`make services` needs PostgreSQL, RabbitMQ and MinIO on this machine",
    ),
]
PAGE = ROOT / "docs" / "operations.md"
EXPORT = re.compile(r"^export (\w+)=(.*)$", re.MULTILINE)
DEAD_LETTER = "JOB_ID"
SAMPLE = ROOT / "assets" / "samples" / "hello.en.mp3"


def block_with(text: str, page: Path = PAGE) -> Block:
    """Return the block of commands that has this text."""
    (found,) = [block for block in blocks(page) if text in block.text]
    return found


def commands(block: Block) -> list[list[str]]:
    """Return the words of each line, without its comment."""
    return [words for line in block.text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user of PostgreSQL can reach."""
    path = Path(tempfile.mkdtemp(prefix="stt-separate-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def stores(folder: Path) -> Iterator[dict[str, str]]:
    """The settings that `make services` prints, while it runs."""
    services, _ = commands(block_with("make services"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    output = folder / "services.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*services, f"VENV={copied_environment(folder / 'venv')}"],
            cwd=ROOT,
            env=environment | {"SERVICES_FOLDER": str(folder / "services")},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: "Ctrl-C ends all three" in output.read_text() or process.poll() is not None, "servers", 120)
        assert process.poll() is None, output.read_text()
        yield dict(EXPORT.findall(output.read_text()))
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C in a terminal
        process.wait(60)


@pytest.fixture
def service(folder: Path, stores: dict[str, str]) -> Iterator[Service]:
    """The three processes, with the exported settings."""
    port = free_port()
    service = Service(f"http://127.0.0.1:{port}", folder, settings(folder, port, **stores))
    _, migrate = commands(block_with("make services"))
    call = [*migrate, f"VENV={folder / 'venv'}"]
    subprocess.run(call, cwd=ROOT, env=service.environment, check=True, capture_output=True)
    try:
        for program, script in commands(block_with("cmd/scheduler/main.py")):
            assert program == ".venv/bin/python"
            service.start(Path(script).parent.name, None, sys.executable, str(ROOT / script))
        service.wait_ready()
        yield service
    finally:
        service.stop()


def stt(service: Service, *words: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "internal.cli", *words],
        env={**service.environment, "PYTHONPATH": str(ROOT), **variables},
        cwd=service.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def test_separate_processes_run_as_the_page_says(service: Service, folder: Path) -> None:
    assert "new contract" in str(service.transcribe(SAMPLE, language="en"))
    replay_a_dead_letter(service, folder)
    transcribe_with_a_key(service, folder)


def replay_a_dead_letter(service: Service, folder: Path) -> None:
    """Run the commands for dead letters of the page on a job that has failed."""
    broken = folder / "broken.mp3"
    broken.write_bytes(b"no audio at all" * 100)
    job_id = service.upload(broken)
    for program, *words in commands(block_with("stt dlq list")):
        assert program == "stt"
        service.wait(job_id)
        wait_until(lambda: job_id in stt(service, "dlq", "list"), "the dead letter", 30)
        assert stt(service, *[job_id if word == DEAD_LETTER else word for word in words])
    assert job_id not in stt(service, "dlq", "list")


def transcribe_with_a_key(service: Service, folder: Path) -> None:
    """Run the block of docs/cli.md for a server with a key."""
    created = stt(service, "keys", "create")
    key = re.search(r"stt_[\w-]+", created)
    assert key, created
    *exports, (program, *words) = commands(block_with("STT_SERVER", ROOT / "docs" / "cli.md"))
    names = [export[1].partition("=")[0] for export in exports]
    assert (program, names) == ("stt", ["STT_SERVER", "STT_API_KEY"])
    shutil.copy(SAMPLE, folder / "talk.mp3")
    variables = dict(zip(names, (service.url, key[0]), strict=True))
    assert "new contract" in stt(service, *words, **variables)
