"""A server as a child process of the test run, on a free loopback port: killed, paused and restarted at will."""

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
"""Descriptors of the locked files of the ports that this process was given."""
_LAUNCHER = ThreadPoolExecutor(1, thread_name_prefix="launcher")
"""The kernel ends a child when the *thread* that made it ends, so one thread that stays makes them all."""


class Unavailable(Exception):
    """This machine has no such server; the text says how to get one."""


def free_port() -> int:
    """A free loopback port below the range that outgoing connections use, given to no other process of any run."""
    for _ in range(200):
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _reserve(port)
            return port
    raise RuntimeError("no free port between 20000 and 32000")


def _reserve(port: int) -> None:
    """Lock the port's file until this process ends. Raises OSError where somebody else has it."""
    PORTS.mkdir(mode=0o777, exist_ok=True)
    number = os.open(PORTS / str(port), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        raise
    _reserved.append(number)


def launch(command: Sequence[str], **more: Any) -> subprocess.Popen[bytes]:
    """Start a program that is killed when this process ends, however that ends."""
    prefix = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([*prefix, *command], stdin=subprocess.DEVNULL, **more)

    return _LAUNCHER.submit(start).result()


def pauses() -> Iterator[float]:
    """Seconds between two looks at something: short at first, then long enough to leave the processor to the others."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 1.25, LAST_PAUSE)


def wait_until(ready: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Poll `ready`; exceptions count as not ready."""
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
    raise TimeoutError(f"{what} within {seconds} s ({last!r})")


def get(url: str, seconds: float = 2) -> httpx.Response:
    """Ask a server on loopback; reading the certificates for anything else takes longer than the answer."""
    return httpx.get(url, timeout=seconds, verify=False)


class Control(Protocol):
    """What can be done to a server, whoever runs it."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def restart(self) -> None: ...
    def remove(self) -> None: ...


class Server:
    """Subclasses give the command, what makes it ready, and its addresses."""

    name = "server"
    orderly = signal.SIGTERM
    """What tells it to end in order."""

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
        """Another user to run as, for servers that refuse root."""
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
        """An orderly end; harmless when it does not run."""
        process, tree = self.process, self._tree()
        if process is None:
            return
        self.resume()
        process.send_signal(self.orderly)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            process.wait()
        psutil.wait_procs(tree, timeout=10)
        self.process = None

    def kill(self) -> None:
        """As if the power had gone."""
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


class Given:
    """A server somebody else runs, named by its address: it cannot be stopped from here."""

    def _refuse(self) -> None:
        raise RuntimeError("this server was given by its address and is not ours to stop")

    start = stop = kill = pause = resume = restart = _refuse

    def remove(self) -> None:
        return
