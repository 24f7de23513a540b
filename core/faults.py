"""Recognition of machine faults by the exceptions they cause."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator
from pathlib import Path

from core.errors import DiskFullError, MachineError

DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
RESOURCE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Faults of the machine even if another exception wraps the error."""
MACHINE_ERRNOS = RESOURCE_ERRNOS | {errno.EAGAIN, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV}
PATH_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ELOOP})
"""Errors about a path: faults of the machine if the path is one of ours."""
_MAX_CAUSES = 20


def is_disk_full(error: OSError) -> bool:
    return error.errno in DISK_FULL_ERRNOS


def machine_error_from(error: OSError) -> MachineError:
    """Return the machine error for a failed operation on a file or process of our own."""
    if is_disk_full(error):
        return DiskFullError()
    return machine_error(errno.errorcode.get(error.errno or 0, type(error).__name__))


def machine_error(reason: str) -> MachineError:
    """Return a machine error. reason: text for the operator, without file names, since /health shows it."""
    return MachineError("The server has a fault: {reason}. No data is lost; try again later.", reason=reason)


def machine_fault(error: BaseException, folders: tuple[Path, ...] = ()) -> MachineError | None:
    """Return the machine fault that `error` is or was raised from, or None if the machine did not cause it.

    A bare OSError is about a file or process of our own. A wrapped one may come from a dependency, so it counts only
    if resources ran out or its path is in one of our own `folders`.
    """
    for depth, cause in enumerate(_causes(error)):
        fault = _fault(cause, folders, wrapped=depth > 0)
        if fault is not None:
            return fault
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def _fault(error: BaseException, folders: tuple[Path, ...], *, wrapped: bool) -> MachineError | None:
    if isinstance(error, MachineError):
        return error
    if isinstance(error, MemoryError):
        return machine_error("out of memory")
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return machine_error("can't start new thread")
    if not isinstance(error, OSError) or isinstance(error, ssl.SSLError):  # TLS has its own error numbers
        return None
    relevant = MACHINE_ERRNOS | DISK_FULL_ERRNOS | PATH_ERRNOS
    if error.errno in (RESOURCE_ERRNOS if wrapped else relevant) or (
        error.errno in relevant and _is_in(error, folders)
    ):
        return machine_error_from(error)
    return None


def _is_in(error: OSError, folders: tuple[Path, ...]) -> bool:
    """Return True if one of the error's paths is in one of the folders."""
    for name in (error.filename, error.filename2):
        if isinstance(name, str | bytes):
            path = Path(name.decode(errors="surrogateescape") if isinstance(name, bytes) else name)
            if any(folder == path or folder in path.parents for folder in folders):
                return True
    return False
