"""Temporary files of one consumer, in a private folder below TEMP_DIR that only consumers of this user work in.

Each consumer owns one folder there, with a marker file that it keeps locked. A folder is removed only where it carries
the marker and nobody holds the lock: TEMP_DIR may be shared with anything else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import structlog

from core.errors import SettingsError
from core.faults import machine_error

log = structlog.get_logger(__name__)
MARKER = ".async-stt-worker"
MARK = b"async-stt: temporary files of a worker, removed when it has ended\n"
UNWRITTEN = 3600.0
"""Seconds after which an empty marker is taken for a finished one."""
PROBE_BYTES = 256 * 1024


def private_folder(temp_dir: Path) -> Path:
    """Where the consumers of this user work."""
    return temp_dir / f"async-stt-{os.geteuid()}"


class Workspace:
    """`open` before use; `close` is harmless twice and before open."""

    def __init__(self, temp_dir: Path, worker_id: str) -> None:
        self.root = private_folder(temp_dir)
        self.path = self.root / worker_id
        self._lock: int | None = None

    def open(self) -> None:
        """Make our folder, lock it, and remove what consumers that are gone left behind.

        Raises SettingsError where the private folder is a link or another user's; OSError where it cannot be made.
        """
        self.ensure()
        for other in self.root.iterdir():
            if other != self.path:
                _remove_if_gone(self.root, other.name)

    def ensure(self) -> None:
        """Make the folder and its marker anew where something else removed them. Raises as `open` does."""
        if self._lock is not None and _is_file(self._lock, self.path / MARKER):
            return
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self.root.mkdir(mode=0o700)
        _check_private(self.root)
        self.path.mkdir(mode=0o700, exist_ok=True)
        lock = _mark(self.path)
        if self._lock is not None:
            log.warning("the temporary folder was gone, it is made anew", action="workspace_restored")
            os.close(self._lock)
        self._lock = lock

    def probe(self) -> None:
        """Check that files can be written here, and kept. Raises OSError, MachineError."""
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
        """A folder for one run, removed at its end whatever happens. Raises OSError, MachineError: none can be made."""
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
            # without its files a recording looks invalid
            raise machine_error("temporary files were removed") from error
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _check_private(folder: Path) -> None:
    """In a TEMP_DIR that everybody may write to, another user could have made the folder first."""
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid():
        raise SettingsError(f"TEMP_DIR: {folder} is not a folder of this user; remove it, or name another TEMP_DIR")
    if stat.S_IMODE(state.st_mode) != 0o700:
        folder.chmod(0o700)


def _mark(folder: Path) -> int:
    """The locked marker's descriptor. It is written last: before the lock is held the folder is nobody's to remove."""
    (folder / MARKER).unlink(missing_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / MARKER, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, MARK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        found, mine = path.lstat(), os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _is_ours(marker: int) -> bool:
    """An empty marker is one whose disk was full when it was written, unless it has only just been made."""
    state = os.fstat(marker)
    if not stat.S_ISREG(state.st_mode):
        return False
    text = os.read(marker, len(MARK) + 1)
    return text == MARK or (not text and time.time() - state.st_mtime > UNWRITTEN)


def _remove_if_gone(root: Path, name: str) -> None:
    """Remove a folder that a consumer left behind; links are not followed, anything else stays."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
        parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        opened.callback(os.close, parent)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        folder = os.open(name, flags, dir_fd=parent)
        opened.callback(os.close, folder)
        marker = os.open(MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        opened.callback(os.close, marker)
        if not _is_ours(marker):
            return
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        log.info("removing a gone consumer's files", action="workspace_cleaned", folder=name)
        shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
