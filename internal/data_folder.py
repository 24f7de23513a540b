"""Locks in DATA_DIR: one embedded service at a time, its address, and the commands that use it.

`.lock` is held by the service and has its address once it listens. The content counts only while the lock is held, so
what a killed service left behind is never believed. `.users` is shared by the commands that use the service. A service
that was started for a command ends when it can take that lock, and keeps it until it has gone, so that a command
never joins a service that is about to end.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import SettingsError

LOCK, USERS = ".lock", ".users"
PROBE_SECONDS = 1.0
"""Seconds that a starting service waits for the lock, which commands hold for an instant to probe it."""
ENDING_SECONDS = 20.0
"""Seconds that it waits for a service that was started for a command, which ends once no command uses it."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a running embedded service. on_demand: started for a command."""

    url: str
    pid: int
    on_demand: bool = False

    @property
    def on_this_machine(self) -> bool:
        """False if the service runs in another container, or on another machine that shares the folder."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


class Starting(Exception):
    """A service holds the lock and does not listen yet, or not any more."""


def lock(folder: Path) -> int:
    """Lock the folder for a service and return the lock's descriptor. Raises SettingsError if another one runs."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _open(folder / LOCK)
    started, limit = time.monotonic(), PROBE_SECONDS
    while not _try(descriptor, fcntl.LOCK_EX):
        if _is_on_demand(descriptor):
            limit = ENDING_SECONDS
        if time.monotonic() > started + limit:
            os.close(descriptor)
            raise SettingsError(f"DATA_DIR: another async-stt is running on {folder}; stop it or use another folder")
        time.sleep(0.02)
    os.ftruncate(descriptor, 0)
    return descriptor


def _is_on_demand(descriptor: int) -> bool:
    """Return True if the lock's holder was started for a command."""
    try:
        return _read(descriptor).on_demand
    except (ValueError, TypeError):
        return False


def _read(descriptor: int) -> Address:
    """Read the address of the lock's holder. Raises ValueError, TypeError if it has not written one."""
    return Address(**json.loads(os.pread(descriptor, 4096, 0)))


def announce(descriptor: int, address: Address) -> None:
    """Write the address of the service that holds the lock."""
    os.pwrite(descriptor, json.dumps(asdict(address)).encode(), 0)


def unlock(descriptor: int) -> None:
    """Release the lock of a service."""
    os.ftruncate(descriptor, 0)
    os.close(descriptor)


def find(folder: Path) -> Address | None:
    """Return the address of the service that runs on the folder, or None. Raises Starting, OSError."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if _try(descriptor, fcntl.LOCK_SH):
            return None
        try:
            return _read(descriptor)
        except (ValueError, TypeError):
            raise Starting from None
    finally:
        os.close(descriptor)


def share(folder: Path) -> int | None:
    """Become a user of the folder's service; return the descriptor to close afterwards. None: the service is ending."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _locked(folder, fcntl.LOCK_SH)


def claim_unused(folder: Path) -> int | None:
    """Keep commands from using the service until the descriptor is closed. None if one uses it."""
    return _locked(folder, fcntl.LOCK_EX)


def _locked(folder: Path, kind: int) -> int | None:
    descriptor = _open(folder / USERS)
    if _try(descriptor, kind):
        return descriptor
    os.close(descriptor)
    return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try(descriptor: int, kind: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        return True
    return False
