"""Temporary files: each consumer owns `TEMP_DIR/{worker_id}` with a locked file; a free lock: its owner is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
_LOCK = ".lock"


class Workspace:
    """`open` before use; `close` is harmless twice and before open."""

    def __init__(self, root: Path, worker_id: str) -> None:
        self.root = root
        self.path = root / worker_id
        self._lock: int | None = None

    def open(self) -> None:
        """Make our folder, lock it, and remove what consumers that are gone left behind."""
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path)
        for other in self.root.iterdir():
            if other != self.path and other.is_dir():
                _remove_if_free(other)

    def close(self) -> None:
        if self._lock is None:
            return
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None

    @contextlib.contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A folder for one run, removed at its end whatever happens."""
        path = self.path / name
        path.mkdir()
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _lock(folder: Path) -> int | None:
    """The locked file's descriptor, or None: somebody holds it."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_if_free(folder: Path) -> None:
    try:
        descriptor = _lock(folder)
    except OSError:
        return
    if descriptor is None:
        return
    log.info("removing a gone consumer's files", action="workspace_cleaned", folder=folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)
