"""Faults of the machine that a process runs on, found in the exceptions they cause."""

from __future__ import annotations

import contextlib
import errno
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.errors import DiskFullError, MachineError

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
RESOURCE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that are the machine's wherever they appear, also below a lost connection."""
MACHINE_ERRNOS = RESOURCE_ERRNOS | {errno.EAGAIN, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV}
PATH_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ELOOP})
"""Errors about a path: the machine's where it is our own."""
_MAX_CAUSES = 20
PROBE_BYTES = 64 * 1024


def machine_error_from(error: OSError) -> MachineError:
    """The machine error for a failed file or process operation of our own, whatever its number."""
    if error.errno in DISK_FULL_ERRNOS:
        return DiskFullError()
    return machine_error(errno.errorcode.get(error.errno or 0, type(error).__name__))


def machine_error(reason: str) -> MachineError:
    """reason: for the operator, without names of files; anybody who may see /health reads it."""
    return MachineError("The server has a fault: {reason}. No data is lost; try again later.", reason=reason)


def machine_fault(error: BaseException, folders: tuple[Path, ...] = ()) -> MachineError | None:
    """The machine fault that `error` is or was raised from; None: the machine has nothing to do with it.

    An OSError that reaches the caller bare is about a file or a process of our own. One that another error wraps may
    be a dependency's, so it counts only where resources ran out or its path lies in one of our own `folders`.
    """
    for depth, link in enumerate(_chain(error)):
        found = _fault(link, folders, wrapped=depth > 0)
        if found is not None:
            return found
    return None


@contextlib.contextmanager
def own_file_errors() -> Iterator[None]:
    """Turn every OSError of the block into a MachineError: for temporary files, whose loss nobody else causes."""
    try:
        yield
    except OSError as error:
        raise machine_error_from(error) from error


def write_file(blocks: Iterable[bytes], path: Path) -> int:
    """Write a temporary file; returns its size. Raises MachineError; what `blocks` raises passes through."""
    size = 0
    with own_file_errors():
        file = path.open("wb")
    try:
        for block in blocks:
            with own_file_errors():
                size += file.write(block)
        with own_file_errors():
            file.flush()
    finally:
        with contextlib.suppress(OSError):
            file.close()
    return size


def check_disk(folder: Path) -> None:
    """Check that the disk of `folder` takes another 64 KiB. Raises MachineError."""
    with own_file_errors(), tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if link is None:
            return
        yield link
        link = link.__cause__ or link.__context__


def _fault(error: BaseException, folders: tuple[Path, ...], *, wrapped: bool) -> MachineError | None:
    if isinstance(error, MachineError):
        return error
    if isinstance(error, MemoryError):
        return machine_error("out of memory")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return machine_error("can't start new thread")
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError):  # TLS has error numbers of its own
        return None
    ours = MACHINE_ERRNOS | DISK_FULL_ERRNOS | PATH_ERRNOS
    if error.errno in (RESOURCE_ERRNOS if wrapped else ours) or (error.errno in ours and _within(error, folders)):
        return machine_error_from(error)
    return None


def _within(error: OSError, folders: tuple[Path, ...]) -> bool:
    for name in (error.filename, error.filename2):
        if isinstance(name, str | bytes):
            path = Path(name.decode(errors="surrogateescape") if isinstance(name, bytes) else name)
            if any(folder == path or folder in path.parents for folder in folders):
                return True
    return False
