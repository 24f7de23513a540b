"""A Docker engine with Compose: one started here in a network of its own, else the machine's."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.servers.base import Unavailable, launch, wait_until

ROOT = Path(__file__).resolve().parents[2]
PORTS = (443, 8000, 9000, 9001, 9090, 9093, 15672)
"""Ports that the compose file publishes and the tests call."""
PLUGIN = Path.home() / ".cache" / "async-stt" / "bin" / "docker-compose"
"""Where deploy/install-container-tools.sh puts Compose."""
STOP_SECONDS = 90.0


class CommandFailed(Exception):
    """A command failed; the message ends with its output."""


class Engine:
    """A running engine. folder: its configuration, and its sockets and data if it was started here."""

    def __init__(self, folder: Path, *, own: bool) -> None:
        self.folder, self.own = folder, own
        self.config = folder / "config"
        (self.config / "cli-plugins").mkdir(parents=True)
        if PLUGIN.exists():
            (self.config / "cli-plugins" / "docker-compose").symlink_to(PLUGIN)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for `docker` and `make`: nobody's project and settings but those of the tests."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        own = {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "DOCKER_BUILDKIT": "0"} if self.own else {}
        # an empty folder has no plugins; that of the user may have some
        config = {"DOCKER_CONFIG": str(self.config)} if PLUGIN.exists() else {}
        return {**inherited, **own, **config}

    def run(self, *command: str, seconds: float = 120, cwd: Path | None = None, **environment: str) -> str:
        """Run a command with this engine; return what it prints. Raises CommandFailed."""
        try:
            done = subprocess.run(
                command,
                env={**self.environment, **environment},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f"{' '.join(command)}: {error!r}") from error
        if done.returncode:
            raise CommandFailed(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout[-4000:]}")
        return done.stdout

    def docker(self, *words: str, seconds: float = 120) -> str:
        return self.run("docker", *words, seconds=seconds)

    def client(
        self, port: int, key: str | None = None, *, url: str | None = None, trust: ssl.SSLContext | None = None
    ) -> httpx.Client:
        """Return a client of a published port. url: the base URL, if it is not http://127.0.0.1:port."""
        socket = str(self.folder / f"{port}.sock") if self.own else None
        transport = httpx.HTTPTransport(uds=socket, verify=trust or True)
        headers = {"X-API-Key": key} if key else {}
        url = url or f"http://127.0.0.1:{port}"
        return httpx.Client(base_url=url, transport=transport, headers=headers, timeout=60)


class OwnEngine(Engine):
    """An engine started here. It builds with the machine's network, and runs containers in one of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, own=True)
        (folder / "daemon.json").write_text("{}")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, host_network: bool) -> None:
        """Raises Unavailable with the end of the engine's log."""
        command = [sys.executable, "-m", "tests.containers.daemon", str(self.folder)]
        command += ["--host-network"] if host_network else [str(port) for port in PORTS]
        for port in PORTS:
            (self.folder / f"{port}.sock").unlink(missing_ok=True)
        with (self.folder / "launcher.log").open("ab") as log:
            self._process = process = launch(command, stdout=log, stderr=log, cwd=ROOT)

        def answers() -> bool:
            return process.poll() is not None or bool(self.docker("version", "--format", "{{.Server.Version}}"))

        wait_until(answers, "the Docker engine answers")
        if process.poll() is not None:
            logs = [path.read_text() for path in sorted(self.folder.glob("*.log"))]
            raise Unavailable("no Docker engine can be started: " + "\n".join(logs)[-1500:])

    def inside(self, *command: str) -> tuple[str, ...]:
        """Return a command that runs `command` in the engine's network, where its ports are published."""
        assert self._process is not None
        return ("nsenter", f"--net=/proc/{self._process.pid}/ns/net", *command)

    def stop(self) -> None:
        """Stop the engine with its containers. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_SECONDS)


@contextmanager
def own_engine() -> Iterator[OwnEngine]:
    """Prepare an engine, not started yet, in a temporary folder that is removed. Raises Unavailable."""
    if os.geteuid() != 0:
        raise Unavailable("starting a Docker engine needs root")
    if not shutil.which("dockerd") or not shutil.which("docker"):
        raise Unavailable("no dockerd: run deploy/install-container-tools.sh")
    if not PLUGIN.exists():
        raise Unavailable("no Docker Compose: run deploy/install-container-tools.sh")
    folder = Path(tempfile.mkdtemp(prefix="stt-docker-"))
    engine = OwnEngine(folder)
    try:
        yield engine
    finally:
        engine.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def machines_engine() -> Iterator[Engine]:
    """Return the machine's running engine. Raises Unavailable."""
    folder = Path(tempfile.mkdtemp(prefix="stt-docker-"))
    engine = Engine(folder, own=False)
    try:
        engine.docker("compose", "version")
        engine.docker("info", seconds=20)
        yield engine
    except CommandFailed as error:
        raise Unavailable(f"no Docker engine: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def project_name() -> str:
    """Return a name for the compose project that no user's project has."""
    return f"async-stt-test-{uuid.uuid4().hex[:8]}"
