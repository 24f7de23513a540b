"""The quickstart of README.md as it is written: from a fresh clone to the transcript of a recording.

Two things are not a newcomer's: the packages are those of the environment that runs the tests, since to install them
takes minutes, and the hub is that of the tests, which serves the demo model under the name of a published one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.documents.blocks import blocks
from tests.documents.replay import NEWCOMER
from tests.e2e.service import ROOT
from tests.hub.server import fake_hub
from tests.servers.base import free_port, wait_until

pytestmark = [pytest.mark.speech, pytest.mark.timeout(300)]
PULL = "stt models pull "
RUN = "make run "
MODEL = "assets/model/ggml-demo-q5_0.bin"
SENTENCE = "Where is the new contract?"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the last commit, whose `make` finds the packages installed."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    folder = tmp_path / "async stt"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / ".venv" / ".run").touch()
    return folder


def publish(clone: Path, name: str) -> bytes:
    """Enter the demo model into the clone's table as the published model of this name, and return its bytes."""
    content = (clone / MODEL).read_bytes()
    table = clone / "worker" / "model_store" / "registry.toml"
    sums = {algorithm: hashlib.new(algorithm, content).hexdigest() for algorithm in ("sha256", "sha1")}
    line = f'{{ name = "{name}", size = {len(content)}, sha256 = "{sums["sha256"]}", sha1 = "{sums["sha1"]}" }}'
    text, count = re.subn(rf'{{ name = "{re.escape(name)}", .* }}', line, table.read_text())
    assert count == 1
    table.write_text(text)
    return content


@contextmanager
def running(command: str, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run the command that starts the service, in the foreground of a shell, until it is healthy; yield its address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    shell = subprocess.Popen(
        ["bash", "-c", command],
        env=environment | {"API_PORT": str(port)},
        cwd=folder,
        start_new_session=True,
    )

    def healthy() -> bool:
        assert shell.poll() is None, "the service has ended"
        try:
            health = httpx.get(f"{url}/health", timeout=5, trust_env=False).json()
        except httpx.TransportError:
            return False
        return bool(health["status"] == "healthy" and health["workers_active"])

    try:
        wait_until(healthy, "the service is healthy", 60)
        yield url
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        try:
            shell.wait(60)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)


def test_from_a_fresh_clone_to_a_transcript(clone: Path, tmp_path: Path) -> None:
    [block] = [block for block in blocks(clone / "README.md") if block.note == NEWCOMER]
    *commands, last = [line.partition("  #")[0].rstrip() for line in block.text.splitlines()]
    [name] = [command.removeprefix(PULL) for command in commands if command.startswith(PULL)]
    assert last == f"{RUN}MODEL={name}"
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(clone / "assets" / "samples" / "hello.en.mp3", home / "my.mp3")
    with fake_hub() as hub:
        hub.add(f"ggml-{name}.bin", publish(clone, name))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HF_ENDPOINT": hub.url,
            "ENGINE": "whisper_cpp_wheel",  # needs no trial
        }
        script = "set -e\n" + "\n".join(commands)
        done = subprocess.run(
            ["bash", "-c", script], env=environment, cwd=clone, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"\n{name}\n" in done.stdout, "pull prints the name"
        assert SENTENCE in (home / "my.txt").read_text()
        assert (home / "my.txt").read_text().strip() in done.stdout
        assert len(hub.requests("storage")) == 1
        hub.seen.clear()
        with running(last, clone, environment) as url:
            assert name in httpx.get(f"{url}/health", trust_env=False).json()["models"]
            with (home / "my.mp3").open("rb") as file:
                form = {"language": "en", "response_format": "verbose_json"}
                answer = httpx.post(
                    f"{url}/v1/audio/transcriptions", files={"file": file}, data=form, timeout=120, trust_env=False
                )
            assert SENTENCE in answer.json()["text"]
            [job] = httpx.get(f"{url}/api/v1/jobs?limit=1", trust_env=False).json()["jobs"]
            result = httpx.get(f"{url}/api/v1/result/{job['job_id']}", trust_env=False).json()
            assert result["model"] == name
        assert not hub.seen, "an installed model needs no network"
