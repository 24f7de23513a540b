"""The cores that a process may use: those of its affinity, and no more than its cgroups' quotas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core import machine
from core.machine import cpu_quotas, usable_cores


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("own", "files", "quotas"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, [1.5]),
        ("0::/\n", {"cpu.max": "max 100000\n"}, []),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "400000 100000\n"}, [4.0]),
        ("0::/gone\n", {"cpu.max": "200000 100000\n"}, [2.0]),
        (
            "4:memory:/m\n1:cpu,cpuacct:/c\n0::/\n",
            {"cpu/c/cpu.cfs_quota_us": "300000", "cpu/c/cpu.cfs_period_us": "100000"},
            [3.0],
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("0::/\n", {"cpu.max": "nonsense\n"}, []),
        ("0::/\n", {}, []),
    ],
)
def test_quotas_of_both_versions_are_read(tmp_path: Path, own: str, files: dict[str, str], quotas: list[float]) -> None:
    write(tmp_path / "self", own)
    for name, content in files.items():
        write(tmp_path / "cgroup" / name, content)
    assert list(cpu_quotas(tmp_path / "cgroup", tmp_path / "self")) == quotas


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert list(cpu_quotas(tmp_path, tmp_path / "none")) == []


@pytest.mark.parametrize(("quotas", "cores"), [([], 4), ([2.0], 2), ([2.5, 8.0], 3), ([0.2], 1), ([16.0], 4)])
def test_the_smallest_limit_counts(monkeypatch: pytest.MonkeyPatch, quotas: list[float], cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(machine, "cpu_quotas", lambda: iter(quotas))
    assert usable_cores() == cores


@pytest.mark.parametrize(
    ("own", "files", "left"),
    [
        ("0::/\n", {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "inactive_file 200\n"}, [500.0]),
        ("0::/\n", {"memory.max": "max\n"}, []),
        (
            "0::/a\n",
            {"a/memory.max": "100\n", "a/memory.current": "300\n", "a/memory.stat": "anon 1\n"},
            [0.0],
        ),
        (
            "4:memory:/m\n",
            {
                "memory/m/memory.limit_in_bytes": "1000",
                "memory/m/memory.usage_in_bytes": "400",
                "memory/m/memory.stat": "inactive_file 1\ntotal_inactive_file 100\n",
            },
            [700.0],
        ),
        ("0::/\n", {"memory.max": "1000\n"}, []),
    ],
)
def test_memory_limits_of_both_versions_are_read(
    tmp_path: Path, own: str, files: dict[str, str], left: list[float]
) -> None:
    write(tmp_path / "self", own)
    for name, content in files.items():
        write(tmp_path / "cgroup" / name, content)
    assert list(machine.memory_left(tmp_path / "cgroup", tmp_path / "self")) == left


@pytest.mark.parametrize(
    ("own", "name", "content", "limits"),
    [
        ("0::/a\n", "a/memory.max", "1000\n", [1000]),
        ("0::/\n", "memory.max", "max\n", []),
        ("4:memory:/m\n", "memory/m/memory.limit_in_bytes", "2000\n", [2000]),
    ],
)
def test_the_smallest_memory_limit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, name: str, content: str, limits: list[int]
) -> None:
    write(tmp_path / "self", own)
    write(tmp_path / "cgroup" / name, content)
    assert list(machine.memory_limits(tmp_path / "cgroup", tmp_path / "self")) == limits
    monkeypatch.setattr(machine, "memory_limits", lambda: iter(limits))
    assert machine.memory_limit() == min([machine.physical_memory(), *limits])


def test_available_memory_is_the_least_of_machine_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "meminfo"
    monkeypatch.setattr(machine, "_MEMORY_INFO", information)
    monkeypatch.setattr(machine, "memory_left", lambda: iter([5e9]))
    assert machine.available_memory() == min(machine.physical_memory(), 5_000_000_000), "without /proc"
    information.write_text("MemTotal: 100 kB\nMemAvailable:   2 kB\n")
    assert machine.available_memory() == 2048
