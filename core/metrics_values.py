"""Values of metrics that several processes of one service share, so that one scrape returns their sum.

prometheus_client keeps such values in files, by default of each process id. Here a process takes the files of the
lowest free number instead: a worker that replaces another continues its counters, and no file is left behind.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import prometheus_client.values

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that prometheus_client reads: the folder of the shared values."""


@contextmanager
def shared_by_children() -> Iterator[None]:
    """Have the processes that are spawned in this block share their values. Their folder is removed at its end."""
    folder = tempfile.mkdtemp(prefix="stt-metrics-")
    os.environ[FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def shared() -> bool:
    """Return whether this process shares its values with others."""
    return FOLDER in os.environ


def use_shared() -> None:
    """Keep the values of all metrics made from now on in the shared folder, if there is one."""
    if not shared():
        return
    number = _take_number(Path(os.environ[FOLDER]))
    prometheus_client.values.ValueClass = prometheus_client.values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]


def _take_number(folder: Path) -> int:
    """Return the lowest number that no other live process has. The lock ends with this process."""
    from filelock import lock_descriptor

    for number in itertools.count():
        descriptor = os.open(folder / f"worker-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if lock_descriptor(descriptor, blocking=False):
            return number
        os.close(descriptor)
    raise AssertionError
