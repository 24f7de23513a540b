"""Resources of this machine that a process may use."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_MEMORY_INFO = Path("/proc/meminfo")


def physical_memory() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_cores() -> int:
    """Return the number of cores that this process may use at once, by its affinity and its cgroup's CPU quota."""
    allowed = len(os.sched_getaffinity(0))
    return min([allowed, *(max(1, math.ceil(quota)) for quota in cpu_quotas())])


def cpu_quotas(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> Iterator[float]:
    """Yield the CPU quotas of the own cgroup and of those above it, in cores."""
    yield from _limits("cpu", _version_2, _version_1, cgroups, own)


def available_memory() -> int:
    """Return the bytes that processes can still take: of the machine, and of the own cgroup and those above it."""
    return int(min([_free_memory(), *memory_left()]))


def _free_memory() -> int:
    try:
        fields = dict(line.split(":", 1) for line in _MEMORY_INFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return physical_memory()


def memory_limit() -> int:
    """Return the bytes that this machine has, or that the own cgroup or one above it grants in all."""
    return int(min([physical_memory(), *memory_limits()]))


def memory_limits(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> Iterator[float]:
    """Yield the memory limits of the own cgroup and of those above it, in bytes."""
    yield from _limits("memory", _number("memory.max"), _number("memory.limit_in_bytes"), cgroups, own)


def _number(file: str) -> Callable[[Path], float]:
    """Return a reader of a cgroup's number. It raises OSError, and ValueError if there is no limit."""
    return lambda folder: int((folder / file).read_text())


def memory_left(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> Iterator[float]:
    """Yield the bytes left below the memory limits of the own cgroup and of those above it."""
    yield from _limits("memory", _memory_version_2, _memory_version_1, cgroups, own)


def _limits(
    controller: str,
    version_2: Callable[[Path], float],
    version_1: Callable[[Path], float],
    cgroups: Path,
    own: Path,
) -> Iterator[float]:
    """Yield a controller's limits, read by a function for each version of cgroups from a cgroup's folder."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if not controllers:
            yield from _readings(cgroups, path, version_2)
        elif controller in controllers.split(","):
            yield from _readings(cgroups / controller, path, version_1)


def _readings(root: Path, path: str, limit: Callable[[Path], float]) -> Iterator[float]:
    # a container sees its own cgroup as the root, whatever the path says
    folder = root / path.lstrip("/")
    for candidate in (folder, *folder.parents):
        if candidate.is_relative_to(root):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                yield limit(candidate)


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


def _memory_version_2(folder: Path) -> float:
    """Read the memory left of cgroup v2. Raises OSError, and ValueError if there is no limit."""
    return _left(int((folder / "memory.max").read_text()), folder / "memory.current", folder)


def _memory_version_1(folder: Path) -> float:
    """Read the memory left of cgroup v1. Raises OSError."""
    return _left(int((folder / "memory.limit_in_bytes").read_text()), folder / "memory.usage_in_bytes", folder)


def _left(limit: int, used: Path, folder: Path) -> float:
    """Return the bytes left, counting cached files that the kernel can drop as free."""
    statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    cached = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
    return max(limit - int(used.read_text()) + cached, 0)
