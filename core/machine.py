"""Resources of this machine that a process may use."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def physical_memory() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of memory that this process and its neighbours may use in total, and those that are still available."""

    limit: int
    available: int


def memory(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP, meminfo: Path = Path("/proc/meminfo")) -> Memory:
    """Return the memory of the tightest cgroup around this process, or of the machine if that has less available.

    Pages of files that the kernel can drop count as available.
    """
    free = physical_memory()
    with contextlib.suppress(OSError):
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limits = [Memory(physical_memory(), free), *_cgroup_values(cgroups, own, "memory", _memory_2, _memory_1)]
    return min(limits, key=lambda limit: limit.available)


def usable_cores() -> int:
    """Return the number of cores that this process may use at once, by its affinity and its cgroup's CPU quota."""
    allowed = len(os.sched_getaffinity(0))
    return min([allowed, *(max(1, math.ceil(quota)) for quota in cpu_quotas())])


def cpu_quotas(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> Iterator[float]:
    """Yield the CPU quotas of the own cgroup and of those above it, in cores."""
    yield from _cgroup_values(cgroups, own, "cpu", _version_2, _version_1)


def _cgroup_values(
    cgroups: Path, own: Path, controller: str, version_2: Callable[[Path], T], version_1: Callable[[Path], T]
) -> Iterator[T]:
    """Yield a value of the own cgroup and of those above it, where they have one."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if not controllers:
            yield from _values(cgroups, path, version_2)
        elif controller in controllers.split(","):
            yield from _values(cgroups / controller, path, version_1)


def _values(root: Path, path: str, value: Callable[[Path], T]) -> Iterator[T]:
    # a container sees its own cgroup as the root, whatever the path says
    folder = root / path.lstrip("/")
    for candidate in (folder, *folder.parents):
        if candidate.is_relative_to(root):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                yield value(candidate)


def _version_2(folder: Path) -> float:
    """Read a quota of cgroup v2. Raises OSError, and ValueError if there is none."""
    quota, period = (folder / "cpu.max").read_text().split()
    return int(quota) / int(period)


def _version_1(folder: Path) -> float:
    """Read a quota of cgroup v1. Raises OSError, and ValueError if there is none."""
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    if quota <= 0:
        raise ValueError("no quota")
    return quota / int((folder / "cpu.cfs_period_us").read_text())


def _memory_2(folder: Path) -> Memory:
    """Read a memory limit of cgroup v2. Raises OSError, and ValueError if there is none."""
    return _limit(folder, "memory.max", "memory.current", "inactive_file")


def _memory_1(folder: Path) -> Memory:
    """Read a memory limit of cgroup v1. Raises OSError, and ValueError if there is none."""
    return _limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _limit(folder: Path, limit_file: str, used_file: str, droppable_key: str) -> Memory:
    limit, used = (int((folder / name).read_text()) for name in (limit_file, used_file))
    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    return Memory(limit, max(0, limit - used + int(stat.get(droppable_key, 0))))
