"""Counting faults of a machine, probing it, and the delays of the rows that it hands back."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import REGISTRY

from core.errors import (
    CorruptedFileError,
    DatabaseUnavailable,
    DiskFullError,
    InternalError,
    MachineError,
    SttError,
    WhisperCrashError,
)
from internal.consumer import machine_health
from internal.consumer.machine_health import HandBackDelays, MachineHealth, probe_machine
from internal.consumer.workspace import Workspace
from repositories.claims import Claim
from worker import ffmpeg


def claim(job_id: str = "job", chunk_index: int | None = None, number: int = 1) -> Claim:
    return Claim(job_id, "worker", "worker/1", number, 0, 0, chunk_index)


@pytest.fixture
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Without jitter; the ranges that were asked for."""
    ranges: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return 1.0

    monkeypatch.setattr("random.uniform", uniform)
    return ranges


# -- delays of rows ---------------------------------------------------------------------------------------------------
def test_a_row_waits_twice_as_long_each_time_up_to_ten_minutes(no_jitter: list[tuple[float, float]]) -> None:
    delays = HandBackDelays()
    assert [delays.next(claim(number=number)) for number in range(9)] == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert set(no_jitter) == {(1.0, 1.3)}


def test_a_row_that_comes_back_for_weeks_has_a_delay(no_jitter: list[tuple[float, float]]) -> None:
    delays = HandBackDelays()
    assert [delays.next(claim()) for _ in range(2000)][-1] == 600


@pytest.mark.usefixtures("no_jitter")
def test_each_row_has_its_own_delays() -> None:
    delays = HandBackDelays()
    rows = [claim(), claim("other"), claim(chunk_index=0), claim(chunk_index=1)]
    for expected in (5, 10):
        assert [delays.next(row) for row in rows] == [expected] * 4
    delays.reset(claim(chunk_index=0))
    delays.reset(claim("never handed back"))
    assert [delays.next(row) for row in rows] == [20, 20, 5, 20]


@pytest.mark.usefixtures("no_jitter")
def test_the_rows_handed_back_longest_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_health, "MAX_TRACKED_ROWS", 2)
    delays = HandBackDelays()
    for job_id in ("a", "b", "a", "c"):
        delays.next(claim(job_id))
    assert [delays.next(claim(job_id)) for job_id in ("a", "c", "b")] == [20, 10, 5]


# -- health -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def health(tmp_path: Path) -> MachineHealth:
    return MachineHealth(tmp_path)


def gauge() -> float | None:
    return REGISTRY.get_sample_value("stt_consumer_sick")


async def is_sick(health: MachineHealth) -> bool:
    waiting = asyncio.create_task(health.wait_until_sick())
    await asyncio.sleep(0)
    waiting.cancel()
    return bool((await asyncio.wait([waiting]))[0]) and not waiting.cancelled()


async def test_three_faults_in_a_row_make_a_machine_sick_until_it_has_recovered(health: MachineHealth) -> None:
    for _ in range(2):
        health.record_fault(DiskFullError())
        health.record_fault(DiskFullError())
        assert health.reason is None
        assert not await is_sick(health)
        health.record_success()
    for _ in range(3):
        health.record_fault(DiskFullError())
    assert health.reason == f"DISK_FULL: {DiskFullError()}"
    assert await is_sick(health)
    assert gauge() == 1
    health.mark_recovered()
    assert health.reason is None
    assert not await is_sick(health)
    assert gauge() == 0
    health.record_fault(DiskFullError())
    health.record_fault(DiskFullError())
    assert health.reason is None, "the faults before the recovery do not count"


def test_the_first_reason_stays_and_names_no_file(health: MachineHealth) -> None:
    health.mark_sick(OSError(errno.EIO, "Input/output error", "/secret/path"))
    assert health.reason == "INTERNAL"
    health.mark_sick(DiskFullError())
    assert health.reason == "INTERNAL"


WRAPPED = DatabaseUnavailable()
WRAPPED.__cause__ = OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("error", "expected", "faults"),
    [
        (CorruptedFileError(), CorruptedFileError, 0),
        (WhisperCrashError(), WhisperCrashError, 0),
        (DatabaseUnavailable(), DatabaseUnavailable, 0),
        (WRAPPED, MachineError, 1),
        (DiskFullError(), DiskFullError, 1),
        (OSError(errno.ENOSPC, "No space left on device"), DiskFullError, 1),
        (KeyError("bug"), InternalError, 1),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_faults_of_the_machine_and_unforeseen_errors_are_counted(
    health: MachineHealth, error: Exception, expected: type[SttError], faults: int
) -> None:
    for _ in range(3):
        assert type(health.classify(error)) is expected
    assert (health.reason is not None) == bool(faults)


def test_a_path_is_the_machines_fault_in_a_folder_of_our_own_only(health: MachineHealth, tmp_path: Path) -> None:
    def behind(path: Path) -> MachineError | None:
        outage = DatabaseUnavailable()
        outage.__cause__ = FileNotFoundError(errno.ENOENT, "gone", str(path))
        return health.fault_behind(outage)

    assert isinstance(behind(tmp_path / "run" / "source"), MachineError)
    assert behind(tmp_path.parent / "elsewhere") is None


async def delays_until_recovered(
    health: MachineHealth, monkeypatch: pytest.MonkeyPatch, errors: Sequence[Exception]
) -> list[float]:
    delays, outcomes = list[float](), [*errors, None]

    async def record(seconds: float) -> None:
        delays.append(seconds)

    async def probe() -> None:
        error = outcomes.pop(0)
        if error is not None:
            raise error

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", record)
        await health.wait_for_recovery(probe)
    assert not outcomes
    return delays


async def test_probes_come_later_and_later_until_a_run_succeeds(
    health: MachineHealth, monkeypatch: pytest.MonkeyPatch, no_jitter: list[tuple[float, float]]
) -> None:
    errors = [DiskFullError(), OSError(), RuntimeError(), MemoryError(), OSError(), OSError()]
    assert await delays_until_recovered(health, monkeypatch, errors) == [2, 4, 8, 16, 32, 60, 60]
    health.mark_recovered()
    assert await delays_until_recovered(health, monkeypatch, []) == [60], "well for a moment only"
    health.record_success()
    assert await delays_until_recovered(health, monkeypatch, [OSError()]) == [2, 4]
    assert set(no_jitter) == {(0.8, 1.2)}


async def test_jitter_is_a_factor_of_the_delay(health: MachineHealth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda *_: 0.5)
    assert await delays_until_recovered(health, monkeypatch, [OSError()]) == [1, 2]
    assert HandBackDelays().next(claim()) == 2.5


async def test_a_bug_in_a_probe_is_no_fault_of_the_machine(
    health: MachineHealth, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyError):
        await delays_until_recovered(health, monkeypatch, [KeyError("bug")])


# -- the probe --------------------------------------------------------------------------------------------------------
class Pool:
    ensured = 0

    async def ensure(self) -> None:
        self.ensured += 1


def script(folder: Path, text: str) -> str:
    path = folder / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return str(path)


async def probe(tmp_path: Path) -> Pool:
    pool: Any = Pool()
    workspace = Workspace(tmp_path / "temp", "worker")
    try:
        await probe_machine(workspace, pool)
        assert workspace.path.is_dir(), "it is made again"
    finally:
        workspace.close()
    return pool  # type: ignore[no-any-return]


async def test_a_probe_tries_everything_and_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    assert (await probe(tmp_path)).ensured == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208


async def test_a_probe_fails_without_descriptors_to_spare(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_now = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + machine_health.PROBE_DESCRIPTORS - 4, before[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            await probe(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(os.listdir("/proc/self/fd")) <= open_now + 1, "what was opened is closed"  # noqa: PTH208


async def test_a_probe_fails_if_ffmpeg_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = script(tmp_path, '[ "$1" = -version ] && exit 3')
    monkeypatch.setattr(ffmpeg, "program", lambda: broken)
    with pytest.raises(MachineError, match="ffmpeg does not start"):
        await probe(tmp_path)


async def test_an_ffmpeg_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = script(tmp_path, f"echo $$ > {tmp_path}/pid; exec /bin/sleep 1000")
    monkeypatch.setattr(ffmpeg, "program", lambda: hanging)
    monkeypatch.setattr(machine_health, "FFMPEG_TIMEOUT", 1.0)
    with pytest.raises(MachineError, match="ffmpeg does not start"):
        await probe(tmp_path)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
