"""Servers as child processes of the test run, on free loopback ports; they can be killed, paused and restarted."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import httpx
import psutil

START_SECONDS = 60.0
FIRST_PAUSE, LAST_PAUSE = 0.03, 0.25
PORTS = Path(tempfile.gettempdir()) / f"async-stt-ports-{os.getuid()}"
_reserved: list[int] = []
"""Descriptors of the lock files of the ports given to this process."""
_LAUNCHER = ThreadPoolExecutor(1, thread_name_prefix="launcher")
"""A single long-lived thread for all launches: the kernel kills a child when the *thread* that created it ends."""


class Unavailable(Exception):
    """This machine has no such server; the message says how to get one."""


def only_containers() -> bool:
    """Return True if servers run in containers, although this machine has their programs (TEST_SERVERS=containers)."""
    return os.environ.get("TEST_SERVERS") == "containers"


def free_port() -> int:
    """Return a free loopback port outside the ephemeral range that no other process of any run has been given."""
    for _ in range(200):
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _reserve(port)
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def _reserve(port: int) -> None:
    """Lock the port's file until this process exits. Raise OSError if another process holds it."""
    PORTS.mkdir(mode=0o777, exist_ok=True)
    number = os.open(PORTS / str(port), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        raise
    _reserved.append(number)


def launch(command: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
    """Start a program that is killed when this process exits for any reason."""
    prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([*prefix, *command], stdin=subprocess.DEVNULL, **more)

    return _LAUNCHER.submit(start).result()


def pauses() -> Iterator[float]:
    """Yield seconds between polls: short at first, then longer to leave the CPU to others."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.25, LAST_PAUSE)


def wait_until(ready: Callable[[], bool], description: str, seconds: float = START_SECONDS) -> None:
    """Poll `ready` until it returns true; an exception counts as not ready."""
    end = time.monotonic() + seconds
    last: Exception | None = None
    for pause in pauses():
        try:
            if ready():
                return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not ready
            last = error
        if time.monotonic() >= end:
            break
        time.sleep(pause)
    raise TimeoutError(f"{description} within {seconds} s ({last!r})")


def get(url: str, seconds: float = 2) -> httpx.Response:
    """Send a GET request without loading certificates, which takes longer than the request itself."""
    return httpx.get(url, timeout=seconds, verify=False)


class Control(Protocol):
    """Operations on a server, whether or not it was started here."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def restart(self) -> None: ...
    def remove(self) -> None: ...


class Server:
    """A server started here. Subclasses define the command, the readiness check and the addresses."""

    name = "server"
    stop_signal = signal.SIGTERM
    """Signal for a graceful shutdown."""

    def __init__(self, folder: Path | None = None) -> None:
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix=f"stt-{self.name}-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def is_ready(self) -> bool:
        raise NotImplementedError

    def user(self) -> str | None:
        """Return the user to run as, for servers that refuse to run as root."""
        return None

    def start(self) -> None:
        if self.process is not None:
            return
        with self.log.open("ab") as output:
            self.process = launch(
                self.command(),
                env=self.environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=self.user(),
                cwd=self.folder,
            )
        try:
            wait_until(self.is_ready, f"{self.name} answers")
        except TimeoutError as error:
            tail = self.log.read_text(errors="replace")[-3000:]
            self.kill()
            raise RuntimeError(f"{self.name} did not start:\n{tail}") from error

    def _tree(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, number: signal.Signals) -> None:
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """Shut down gracefully. Idempotent."""
        process, tree = self.process, self._tree()
        if process is None:
            return
        self.resume()
        process.send_signal(self.stop_signal)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            process.wait()
        psutil.wait_procs(tree, timeout=10)
        self.process = None

    def kill(self) -> None:
        """Kill the whole process tree, as a power loss would."""
        process, tree = self.process, self._tree()
        if process is None:
            return
        self._signal(signal.SIGKILL)
        process.wait()
        psutil.wait_procs(tree, timeout=10)
        self.process = None

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class External:
    """A server known only by its address; it cannot be stopped from here."""

    def _refuse(self) -> None:
        raise RuntimeError("this server was given by its address and cannot be controlled from here")

    start = stop = kill = pause = resume = restart = _refuse

    def remove(self) -> None:
        return
