"""Memory and disk space of this process and its machine, read when they are scraped."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from core import metrics_values
from core.config import Settings
from core.machine import available_memory, memory_limit

_PROC = Path("/proc")


class ProcessMetrics(Collector):
    """All metrics of a process, or of all processes that share their values with it."""

    def __init__(self, settings: Settings) -> None:
        self._folders = {"data": settings.data_dir, "temp": settings.temp_dir, "models": settings.models_dir}

    def collect(self) -> Iterable[Metric]:
        shared = metrics_values.shared()
        yield from MultiProcessCollector(None).collect() if shared else REGISTRY.collect()  # type: ignore[no-untyped-call]
        yield from _disks(self._folders)
        yield from _memory()
        # the parent of the processes that share values is their supervisor
        used = sum(map(_proportional_bytes, _descendants(os.getppid() if shared else os.getpid())))
        yield GaugeMetricFamily(
            "stt_process_memory_bytes", "Memory of this process and its children, shared pages divided", used
        )


def _disks(folders: Mapping[str, Path]) -> Iterator[Metric]:
    free = GaugeMetricFamily("stt_disk_free_bytes", "Free space on the disk of a folder", labels=["folder"])
    size = GaugeMetricFamily("stt_disk_size_bytes", "Size of the disk of a folder", labels=["folder"])
    for name, folder in folders.items():
        with contextlib.suppress(OSError):
            usage = shutil.disk_usage(folder)
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
    yield from (free, size)


def _memory() -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "stt_memory_available_bytes", "Memory that this container or machine can still give", available_memory()
    )
    yield GaugeMetricFamily(
        "stt_memory_limit_bytes", "Memory limit of this container, or memory of the machine", memory_limit()
    )


def _descendants(pid: int) -> Iterator[int]:
    """Yield the process and all its descendants."""
    yield pid
    for children in (_PROC / str(pid) / "task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from _descendants(int(child))


def _proportional_bytes(pid: int) -> int:
    """Return the memory of a process, each shared page divided by the processes that share it; 0 if it has ended."""
    with contextlib.suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
