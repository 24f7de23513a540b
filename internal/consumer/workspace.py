"""Temporary files of one consumer, in a private folder below TEMP_DIR that the consumers of one user share.

Each consumer has a folder in it, with a marker file that it keeps locked. A folder is removed only if it has a marker
whose lock is free, because TEMP_DIR may contain other files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from filelock import lock_descriptor

from core.errors import SettingsError
from core.faults import machine_error

log = structlog.get_logger(__name__)
MARKER = ".async-stt-worker"
MARKER_TEXT = b"async-stt: temporary files of a worker, removed when it has ended\n"
EMPTY_MARKER_AGE = 3600.0
"""Age in seconds from which an empty marker counts as complete."""
PROBE_BYTES = 256 * 1024


def private_folder(temp_dir: Path) -> Path:
    """Return the folder that the consumers of this user share."""
    return temp_dir / f"async-stt-{os.geteuid()}"


class Workspace:
    """A consumer's folder. Call `open` before use; `close` is idempotent and may be called before `open`."""

    def __init__(self, temp_dir: Path, worker_id: str) -> None:
        self.root = private_folder(temp_dir)
        self.path = self.root / worker_id
        self._lock: int | None = None

    def open(self) -> None:
        """Create and lock the consumer's folder, and remove the folders that ended consumers left behind.

        Raises SettingsError if the private folder is a link or another user's; OSError if it cannot be created.
        """
        self.ensure()
        for other in self.root.iterdir():
            if other != self.path:
                _remove_if_abandoned(self.root, other.name)

    def ensure(self) -> None:
        """Create the folder and its marker if they are missing. Raises as `open` does."""
        if self._lock is not None and _is_same_file(self._lock, self.path / MARKER):
            return
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.root.mkdir(mode=0o700)
        _check_private(self.root)
        self.path.mkdir(mode=0o700, exist_ok=True)
        lock = _create_marker(self.path)
        if self._lock is not None:
            log.warning("temporary folder was removed, created a new one", action="workspace_restored")
            os.close(self._lock)
        self._lock = lock

    def probe(self) -> None:
        """Check that files can be written and are not removed. Raises OSError, MachineError."""
        with self.folder("probe") as folder, (folder / "file").open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        if self._lock is None:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Create a folder for the block and remove it afterwards. Raises OSError, MachineError."""
        try:
            self.ensure()
        except SettingsError as error:
            raise machine_error("the folder in TEMP_DIR is not this user's") from error
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.path))
        try:
            yield path
        except Exception as error:
            if path.is_dir():
                raise
            # otherwise the recording would be reported as invalid
            raise machine_error("temporary files were removed") from error
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _check_private(folder: Path) -> None:
    """Raise SettingsError unless the folder is this user's: in a shared TEMP_DIR, others may have created it first."""
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
        raise SettingsError(f"TEMP_DIR: {folder} is not a folder of this user; remove it, or name another TEMP_DIR")
    if stat.S_IMODE(state.st_mode) != 0o700:
        folder.chmod(0o700)


def _create_marker(folder: Path) -> int:
    """Create and lock the marker; return its descriptor.

    The text is written after locking, so that no other consumer removes the folder in between.
    """
    (folder / MARKER).unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / MARKER, flags, 0o600)
    try:
        if not lock_descriptor(descriptor, blocking=False):
            raise BlockingIOError(errno.EWOULDBLOCK, "the new marker is locked by another process")
        os.write(descriptor, MARKER_TEXT)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except OSError:
        return False


def _is_marker(marker: int) -> bool:
    """Return whether the file is a consumer's marker. An old empty one was created while the disk was full."""
    state = os.fstat(marker)
    if not stat.S_ISREG(state.st_mode):
        return False
    text = os.read(marker, len(MARKER_TEXT) + 1)
    return text == MARKER_TEXT or (not text and time.time() - state.st_mtime > EMPTY_MARKER_AGE)


def _remove_if_abandoned(root: Path, name: str) -> None:
    """Remove a folder that an ended consumer left behind, without following links; leave anything else."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        opened.callback(os.close, parent)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = os.open(name, flags, dir_fd=parent)
        opened.callback(os.close, folder)
        marker = os.open(MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        opened.callback(os.close, marker)
        if not _is_marker(marker) or not lock_descriptor(marker, blocking=False):
            return
        log.info("removing files of an earlier consumer", action="workspace_cleaned", folder=name)
        shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
