"""The lock of a models folder, which machines may share over a network file system.

The lock is a file that only its creator could create (O_EXCL, which NFS supports), with its owner's name. Its owner
renews its time every few seconds. A waiting process measures, on its own clock, for how long that time stays the same,
so the machines' clocks need not agree. It takes over a lock that was not renewed for `stale_seconds`, or at once if the
owner was a process of the same machine that has ended. An owner that finds a lock of somebody else stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from core.errors_models import PullLockLostError

log = structlog.get_logger(__name__)
RENEW_SECONDS = 10.0
STALE_SECONDS = 120.0
"""More than the time for which NFS clients may cache a file's attributes (60 s by default), and many renewals."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock. machine: its boot and process namespace; started: the kernel's start time."""

    host: str
    machine: str
    pid: int
    started: str
    token: str
    purpose: str

    @classmethod
    def current(cls, purpose: str) -> Owner:
        return cls(
            socket.gethostname()[:100], _machine(), os.getpid(), _started(os.getpid()), secrets.token_hex(8), purpose
        )

    @property
    def ended(self) -> bool:
        """True if this was a process of this machine that no longer exists."""
        return bool(self.machine) and self.machine == _machine() and _started(self.pid) != self.started

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return the start time of a process in the kernel's ticks, or an empty text if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class FolderLock:
    """A held lock. `check` raises PullLockLostError once another process has it."""

    def __init__(self, path: Path, owner: Owner, renew_seconds: float) -> None:
        self.path, self.owner = path, owner
        self._renew_seconds = renew_seconds
        self._released = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="model lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._lost.is_set():
            raise PullLockLostError

    def confirm(self) -> None:
        """Read the lock file again; raise PullLockLostError unless it still names this owner."""
        if _read(self.path) != self.owner:
            self._lost.set()
        self.check()

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        if _read(self.path) == self.owner:
            self.path.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._released.wait(self._renew_seconds):
            try:
                if _read(self.path) != self.owner:
                    self._lost.set()
                    log.warning("lock of the models folder lost", action="model_lock_lost", path=str(self.path))
                    return
                os.utime(self.path)
            except OSError as error:  # the file system is away; the next renewal may succeed
                log.warning("lock of the models folder not renewed", action="model_lock_late", reason=repr(error))


@contextlib.contextmanager
def hold(
    path: Path,
    purpose: str,
    on_wait: Callable[[Owner | None], None],
    *,
    pause_seconds: float = 1.0,
    renew_seconds: float = RENEW_SECONDS,
    stale_seconds: float = STALE_SECONDS,
) -> Iterator[FolderLock]:
    """Hold the lock. on_wait is called with the present owner every `pause_seconds`, and may raise to give up.

    Raises OSError if the folder cannot be written.
    """
    owner = Owner.current(purpose)
    watched, since = None, time.monotonic()
    while not _create(path, owner):
        state = _state(path)
        if state != watched:
            watched, since = state, time.monotonic()
        present = _read(path)
        if (present is not None and present.ended) or time.monotonic() - since > stale_seconds:
            _remove_stale(path, present)
            continue
        on_wait(present)
        time.sleep(pause_seconds)
    lock = FolderLock(path, owner, renew_seconds)
    try:
        yield lock
    finally:
        lock.release()


def _create(path: Path, owner: Owner) -> bool:
    """Create the lock file with its content at once: a link to a complete file, or O_EXCL where links do not exist."""
    draft = path.with_name(f"{path.name}.{owner.token}")
    draft.write_text(json.dumps(asdict(owner)))
    try:
        os.link(draft, path)
    except FileExistsError:
        return _read(path) == owner  # a network file system may repeat a request whose answer was lost
    except OSError:
        return _create_exclusively(path, owner)
    finally:
        draft.unlink(missing_ok=True)
    return True


def _create_exclusively(path: Path, owner: Owner) -> bool:
    try:
        with path.open("x") as file:
            file.write(json.dumps(asdict(owner)))
    except FileExistsError:
        return False
    return True


def _remove_stale(path: Path, stale: Owner | None) -> None:
    """Remove the lock of `stale`. A new owner's lock that was moved instead, in a race, is put back."""
    moved = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.rename(moved)
    except FileNotFoundError:
        return
    if _read(moved) != stale:
        with contextlib.suppress(OSError):
            os.link(moved, path)
    else:
        log.warning("stale lock of the models folder removed", action="model_lock_stale", owner=str(stale))
    moved.unlink(missing_ok=True)


def _state(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino


def _read(path: Path) -> Owner | None:
    """Return the owner in the lock file; None if there is no lock, or its content is not complete."""
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
