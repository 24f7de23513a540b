"""Resources of this machine that a process may use."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")


def physical_memory() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def usable_cores() -> int:
    """Return the number of cores that this process may use at once, by its affinity and its cgroup's CPU quota."""
    allowed = len(os.sched_getaffinity(0))
    return min([allowed, *(max(1, math.ceil(quota)) for quota in cpu_quotas())])


def cpu_quotas(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUP) -> Iterator[float]:
    """Yield the CPU quotas of the own cgroup and of those above it, in cores."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in lines:
        if not controllers:
            yield from _quotas(cgroups, path, _version_2)
        elif "cpu" in controllers.split(","):
            yield from _quotas(cgroups / "cpu", path, _version_1)


def _quotas(root: Path, path: str, quota: Callable[[Path], float]) -> Iterator[float]:
    # a container sees its own cgroup as the root, whatever the path says
    folder = root / path.lstrip("/")
    for candidate in (folder, *folder.parents):
        if candidate.is_relative_to(root):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                yield quota(candidate)


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
