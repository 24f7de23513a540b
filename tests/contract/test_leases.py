"""Leases on both databases: live holders keep theirs, dead ones lose them and are counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from core.database import Database, after
from core.domain.job import JobStatus
from core.errors import ChunkTimeoutError, CorruptedFileError
from repositories import claims, commits, deletion, failures, leases, plans, schedule
from repositories.claims import Claim, ClaimRequest
from repositories.models import Chunk, Job
from tests.contract import invariants
from tests.contract.rows import (
    LEASE,
    WORKER,
    chunk,
    claim,
    commit,
    expire,
    finalise,
    job,
    lapse,
    new_job,
    plan,
    planned_job,
    run_chunk,
)


async def renew(database: Database, *claims_held: Claim) -> list[Claim]:
    async with database.write() as session:
        return await leases.renew(session, claims_held, LEASE)


async def claim_prepare(database: Database, job_id: str) -> Claim:
    async with database.write() as session:
        claimed = await claims.claim_prepare(session, job_id, 0, ClaimRequest(WORKER, LEASE))
    assert claimed is not None
    return claimed[0]


async def test_a_renewed_lease_does_not_lapse(database: Database) -> None:
    unplanned, planned = await new_job(database), await planned_job(database, 2)
    first, second = await claim(database, planned, 0), await claim(database, planned, 1)
    assert first is not None
    assert second is not None
    claims_held = (await claim_prepare(database, unplanned), first.claim, second.claim)
    for job_id in (unplanned, planned):
        await expire(database, job_id)
    assert await renew(database, *claims_held) == []
    async with database.write() as session:
        assert await leases.release_lapsed(session, await leases.current_time(session)) == 0
    rows = (await job(database, unplanned), await chunk(database, planned, 0), await chunk(database, planned, 1))
    assert [(row.holder, row.lost) for row in rows] == [(chunk_claim.holder, 0) for chunk_claim in claims_held]
    await invariants.check(database)


async def test_a_live_holder_regains_its_lapsed_row_uncounted(database: Database) -> None:
    """The holder could not renew for a while, but nobody else has claimed the row since."""
    unplanned, planned = await new_job(database), await planned_job(database, 1)
    chunk_claim = await claim(database, planned)
    assert chunk_claim is not None
    claims_held = (await claim_prepare(database, unplanned), chunk_claim.claim)
    for job_id in (unplanned, planned):
        assert await lapse(database, job_id) == 1
    assert await renew(database, *claims_held) == []
    rows = (await job(database, unplanned), await chunk(database, planned, 0))
    assert [(row.holder, row.lost) for row in rows] == [(chunk_claim.holder, 0) for chunk_claim in claims_held]
    assert (await chunk(database, planned, 0)).status == JobStatus.PROCESSING
    assert await claim(database, planned, worker="worker-2") is None
    await invariants.check(database)


async def test_a_row_claimed_by_another_consumer_is_not_regained(database: Database) -> None:
    job_id = await planned_job(database, 1)
    first = await claim(database, job_id)
    await lapse(database, job_id)
    second = await claim(database, job_id, worker="worker-2")
    assert first is not None
    assert second is not None
    assert await renew(database, first.claim) == []
    row = await chunk(database, job_id, 0)
    assert (row.holder, row.lost) == (second.claim.holder, 1)
    await lapse(database, job_id)
    assert await renew(database, first.claim) == []
    assert (await chunk(database, job_id, 0)).holder is None, "two claims ago"


@pytest.mark.parametrize("ending", ["hand back", "retry", "commit", "fail", "cancel", "delete"])
async def test_a_late_renewal_regains_nothing(database: Database, ending: str) -> None:
    """The renewal arrives after the consumer handed the row back, or after the job has ended."""
    job_id = await planned_job(database, 2)
    chunk_claim = await claim(database, job_id)
    assert chunk_claim is not None
    ends: dict[str, Any] = {
        "hand back": lambda session: failures.hand_back(session, chunk_claim.claim),
        "retry": lambda session: failures.retry_later(session, chunk_claim.claim, ChunkTimeoutError(), 2.0),
        "commit": lambda session: commits.commit_chunk(
            session, chunk_claim, commits.ChunkOutcome([], 1.0, "en", {}), pin_language=False
        ),
        "fail": lambda session: failures.fail_job(session, job_id, CorruptedFileError(), "t", claim=chunk_claim.claim),
        "cancel": lambda session: failures.cancel_job(session, job_id, "local"),
        "delete": lambda session: deletion.mark_deleted(session, job_id, "local"),
    }
    async with database.write() as session:
        await ends[ending](session)
    ended = ending in ("fail", "cancel", "delete")
    assert await renew(database, chunk_claim.claim) == [chunk_claim.claim] * ended
    assert (await chunk(database, job_id, 0)).holder is None
    await invariants.check(database)


async def test_a_stored_plan_ends_the_lease_of_its_prepare(database: Database) -> None:
    job_id = await new_job(database)
    claims_held = await claim_prepare(database, job_id)
    async with database.write() as session:
        assert await plans.store_plan(session, job_id, plan(0, claims_held.number, job_id=job_id)) is not None
    assert await renew(database, claims_held) == []
    assert (await job(database, job_id)).holder is None, "Finalise would wait for an unused lease"


async def test_rows_of_a_reopened_job_do_not_return_to_their_old_holder(database: Database) -> None:
    job_id = await planned_job(database, 1)
    chunk_claim = await claim(database, job_id)
    assert chunk_claim is not None
    async with database.write() as session:
        assert await failures.cancel_job(session, job_id, "local")
        assert await failures.retry_job(session, job_id, "local")
    assert await renew(database, chunk_claim.claim) == []
    assert (await chunk(database, job_id, 0)).holder is None
    await invariants.check(database)


async def test_an_hour_of_outages_loses_no_holder(database: Database) -> None:
    """The holder waits for storage for hours; it renews while the scheduler runs."""
    job_id = await planned_job(database, 1)
    chunk_claim = await claim(database, job_id)
    assert chunk_claim is not None
    for _ in range(20):
        await expire(database, job_id)
        await renew(database, chunk_claim.claim)
        async with database.write() as session:
            assert await leases.release_lapsed(session, await leases.current_time(session)) == 0
            assert await schedule.reserve_due_chunks(session) == []
    assert await commit(database, chunk_claim) is not None
    row = await chunk(database, job_id, 0)
    assert (row.lost, row.failures, row.attempts) == (0, 0, 1)


async def test_a_lapsed_lease_is_released_by_one_scheduler(database: Database) -> None:
    job_id = await planned_job(database, 10)
    for index in range(10):
        await claim(database, job_id, index)
    await expire(database, job_id)

    async def release() -> int:
        async with database.write() as session:
            return await leases.release_lapsed(session, await leases.current_time(session))

    assert sum(await asyncio.gather(*(release() for _ in range(4)))) == 10
    assert {(await chunk(database, job_id, index)).lost for index in range(10)} == {1}
    await invariants.check(database)


async def test_a_concurrent_cancel_and_claim_leave_nothing_due(database: Database) -> None:
    for _ in range(20):
        job_id = await planned_job(database, 2)
        start = asyncio.Barrier(2)

        async def cancel(job_id: str = job_id, start: asyncio.Barrier = start) -> None:
            await start.wait()
            async with database.write() as session:
                await failures.cancel_job(session, job_id, "local")

        async def take(job_id: str = job_id, start: asyncio.Barrier = start) -> None:
            await start.wait()
            await claim(database, job_id)

        await asyncio.gather(cancel(), take())
        await invariants.check(database)


async def test_rows_left_due_by_older_versions_are_cleared(database: Database) -> None:
    """A claim that raced a cancel left its chunk due forever, and each scan skipped it."""
    cancelled, deleted, alive = [await planned_job(database, 2) for _ in range(3)]
    async with database.write() as session:
        await failures.cancel_job(session, cancelled, "local")
        await deletion.mark_deleted(session, deleted, "local")
        for row in (Job, Chunk):
            condition = row.job_id.in_((cancelled, deleted))
            await session.execute(update(row).where(condition).values(due_at=after(-60), holder="gone/1"))
    await expire(database, alive)
    async with database.write() as session:
        assert await schedule.clear_ended(session) == 6
        assert await schedule.clear_ended(session) == 0
    await invariants.check(database)
    async with database.write() as session:
        assert len(await schedule.reserve_due_chunks(session)) == 2


async def test_success_clears_the_error_of_an_earlier_attempt(database: Database) -> None:
    job_id = await new_job(database)
    claims_held = await claim_prepare(database, job_id)
    async with database.write() as session:
        assert await failures.retry_later(session, claims_held, ChunkTimeoutError(), 1.0) == 1
    async with database.write() as session:
        assert await plans.store_plan(session, job_id, plan(1, job_id=job_id)) is not None
    row = await job(database, job_id)
    assert (row.error_code, row.error_message) == (None, None), "visible in lists while the chunks run"
    await run_chunk(database, job_id, 0)
    async with database.write() as session:
        await session.execute(update(Job).values(error_code="DISK_FULL", error_message="no room"))  # of a Finalise
    assert await finalise(database, job_id)
    row = await job(database, job_id)
    assert (row.status, row.error_code, row.error_message) == (JobStatus.COMPLETED, None, None)
