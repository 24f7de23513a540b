"""Hazards for a running service: killed processes and servers, a cleaned or full temporary folder, paused storage."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from tests.e2e.service import Service
from tests.servers.base import Server

TEMP_BYTES = 96 * 1024 * 1024
"""Size of the file system mounted on TEMP_DIR."""
FULL_SECONDS = 15.0


@dataclass
class Hazards:
    """A shuffled deck of hazards: none happens twice as often as another.

    processes: name to kind, as for `Service.start`. pause: seconds for which storage is stopped.
    disk: whether TEMP_DIR is a small file system that can be filled.
    """

    service: Service
    servers: dict[str, Server]
    processes: dict[str, str]
    temp: Path
    pause: float
    disk: bool
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    happened: Counter[str] = field(default_factory=Counter)
    _deck: list[str] = field(default_factory=list)

    def cause_next(self) -> None:
        """Cause the next hazard and return once its damage is repaired."""
        hazards = self._hazards()
        if not self._deck:
            self._deck = list(hazards)
            self.rng.shuffle(self._deck)
        name = self._deck.pop()
        hazards[name]()
        self.happened[name] += 1

    def _hazards(self) -> dict[str, Callable[[], None]]:
        hazards: dict[str, Callable[[], None]] = {
            f"kill {name}": partial(self._kill_process, name) for name in self.processes
        }
        hazards |= {f"kill {name}": partial(self._kill_server, server) for name, server in self.servers.items()}
        consumers = [name for name, kind in self.processes.items() if kind == "consumer"]
        hazards |= {f"kill the engines of {name}": partial(self._kill_children, name) for name in consumers}
        hazards["clean TEMP_DIR"] = self._clean_temp
        if "minio" in self.servers:
            hazards["pause storage"] = self._pause_storage
        if self.disk:
            hazards["fill the disk"] = self._fill_disk
        return hazards

    def _kill_process(self, name: str) -> None:
        self.service.kill(name)
        self.service.start(name, self.processes[name])

    def _kill_server(self, server: Server) -> None:
        server.kill()
        server.start()

    def _kill_children(self, name: str) -> None:
        """Kill every engine process, idle or busy, like the kernel's OOM killer."""
        for child in psutil.Process(self.service.processes[name].pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def _clean_temp(self) -> None:
        for path in self.temp.iterdir():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def _pause_storage(self) -> None:
        self.servers["minio"].pause()
        time.sleep(self.pause)
        self.servers["minio"].resume()

    def _fill_disk(self) -> None:
        filler = self.temp / "filler"
        try:
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(1024 * 1024))
            time.sleep(FULL_SECONDS)
        finally:
            filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Mount a file system of `TEMP_BYTES` on `folder`; yield False if this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TEMP_BYTES}", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
