"""Operations on files of this process. The errors of its temporary files are faults of the machine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from core.faults import machine_error_from

BLOCK_SIZE = 1024 * 1024
"""Bytes read, written or queued at a time."""
PROBE_BYTES = 64 * 1024


@contextlib.contextmanager
def own_file_errors() -> Iterator[None]:
    """Turn each OSError of the block into a MachineError. Only for files that no other process uses."""
    try:
        yield
    except OSError as error:
        raise machine_error_from(error) from error


def write_file(blocks: Iterable[bytes], path: Path) -> int:
    """Write a temporary file and return its size in bytes. Raises MachineError; errors of `blocks` pass through."""
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


def sync(path: Path) -> None:
    """Write a file, or the entries of a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_disk(folder: Path) -> None:
    """Check that the disk of `folder` accepts 64 KiB. Raises MachineError."""
    with own_file_errors(), tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
