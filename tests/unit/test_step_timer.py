"""Limits on working time; waiting for a dependency does not count."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import ChunkTimeoutError, JobTimeoutError, Kind, StorageUnavailable
from internal.consumer.leases import Leases
from internal.outage_retry import OutageRetry
from internal.scheduler.lease_guard import LeaseGuard
from internal.step_timer import paused, step_timer
from repositories.claims import Claim

CLAIM = Claim("job", "worker", "worker/1", 1, 0, 0)


async def test_work_beyond_the_limit_is_cancelled() -> None:
    with pytest.raises(TimeoutError):
        async with step_timer(0.05) as timer:
            await asyncio.Event().wait()
    assert timer.expired
    assert not timer.withdrawn


async def test_concurrent_waits_do_not_count_as_work() -> None:
    async def wait(seconds: float) -> None:
        with paused():
            await asyncio.sleep(seconds)

    async with step_timer(0.1) as timer:
        await asyncio.gather(wait(0.15), wait(0.3))
        await wait(0.15)
    assert not timer.expired


async def test_working_time_before_and_after_a_wait_adds_up() -> None:
    with pytest.raises(TimeoutError):
        async with step_timer(0.2):
            for _ in range(100):
                await asyncio.sleep(0.05)
                with paused():
                    await asyncio.sleep(0.05)


async def test_an_outage_counts_as_waiting() -> None:
    calls = 0

    async def down_twice() -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.1)
        if calls < 3:
            raise StorageUnavailable
        return "up"

    async with step_timer(0.05):
        assert await OutageRetry().run(down_twice) == "up"


def leases(job_timeout: float) -> Leases:
    return Leases(None, 30.0, job_timeout)  # type: ignore[arg-type]


async def hang() -> None:
    await asyncio.Event().wait()


async def test_a_step_is_retried_after_its_deadline_and_fails_after_job_timeout() -> None:
    short = leases(job_timeout=60)
    with short.hold(CLAIM, 0.01), pytest.raises(ChunkTimeoutError) as step:
        await short.run(CLAIM, hang)
    assert step.value.kind is Kind.WORK
    for deadline in (60.0, 0.01):
        strict = leases(job_timeout=0.01)
        with strict.hold(CLAIM, deadline), pytest.raises(JobTimeoutError) as job:
            await strict.run(CLAIM, hang)
        assert (job.value.kind, job.value.code) == (Kind.PERMANENT, "TIMEOUT")


async def test_a_timeout_raised_by_the_work_passes_through() -> None:
    async def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await leases(60).run(CLAIM, fail)


# -- release of lapsed leases ------------------------------------------------------------------------------------------
def releases_allowed(guard: LeaseGuard, *clocks: tuple[float, float]) -> list[bool]:
    return [guard.allows_release(here, database) for here, database in clocks]


def test_a_new_scheduler_waits_for_one_lease() -> None:
    allowed = releases_allowed(LeaseGuard(30, 10), *[(t, t) for t in (1000, 1010, 1020, 1029, 1030, 1031)])
    assert allowed == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    "gap",
    [(600.0, 600.0), (28_800.0, 28_800.0), (0.0, 3600.0), (0.0, -3600.0), (60.0, 0.0)],
    ids=["outage", "laptop asleep", "clock set forward", "clock set back", "process stopped"],
)
def test_after_a_gap_live_holders_have_one_lease_to_renew(gap: tuple[float, float]) -> None:
    guard = LeaseGuard(30, 10)
    assert releases_allowed(guard, *[(t, t) for t in range(0, 40, 5)])[-1]
    here, database = 35 + gap[0], 35 + gap[1]
    after = releases_allowed(
        guard, *[(here + t, database + t) for t in (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 34.0, 35.0, 36.0)]
    )
    assert after == [False] * 7 + [True] * 2
