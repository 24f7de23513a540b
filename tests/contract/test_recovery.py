"""Failure, replay, cancellation, and `due_at`, the only clock of recovery, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from sqlalchemy import update

from core.database import Database, after
from core.domain.job import JobStatus
from core.errors import WhisperCrashError
from repositories import failures, schedule
from repositories.claims import WakeUp
from repositories.models import Chunk
from tests.contract import invariants
from tests.contract.rows import (
    chunk,
    claim,
    commit,
    expire,
    finalise,
    indexes,
    job,
    lapse,
    new_job,
    planned_job,
    run_chunk,
)


async def fail(database: Database, job_id: str, token: str = "token") -> bool:
    claimed = await claim(database, job_id)
    assert claimed is not None
    async with database.write() as session:
        return await failures.fail_job(session, job_id, WhisperCrashError(), token, claim=claimed.claim)


async def test_a_job_fails_once_and_parks_its_chunks(database: Database) -> None:
    job_id = await planned_job(database, 3)
    assert await fail(database, job_id)
    async with database.write() as session:
        assert not await failures.fail_job(session, job_id, WhisperCrashError(), "again")
    row = await job(database, job_id)
    assert (row.status, row.error_code, row.replay_token) == (JobStatus.FAILED, "WORKER_CRASH", "token")
    assert all([(await chunk(database, job_id, index)).due_at is None for index in range(3)])
    assert await claim(database, job_id, 1) is None


async def test_a_dead_letter_is_due_until_it_is_published(database: Database) -> None:
    job_id = await planned_job(database, 1)
    await fail(database, job_id)
    await expire(database, job_id)
    async with database.write() as session:
        assert [due.token for due in await schedule.reserve_due_jobs(session)] == ["token"]
        await schedule.mark_dead_letter_published(session, job_id, "token")
    await expire(database, job_id)
    async with database.write() as session:
        assert await schedule.reserve_due_jobs(session) == []


async def test_a_dead_letter_is_replayed_once_for_missing_chunks(database: Database) -> None:
    job_id = await planned_job(database, 3)
    await run_chunk(database, job_id, 2)
    await fail(database, job_id)
    async with database.write() as session:
        assert await failures.replay(session, job_id, "wrong") is None
        wake_ups = await failures.replay(session, job_id, "token")
    assert wake_ups is not None
    assert indexes(wake_ups) == [0, 1]
    async with database.write() as session:
        assert await failures.replay(session, job_id, "token") is None
    await invariants.check(database)
    for index in (0, 1):
        await run_chunk(database, job_id, index)
    assert await finalise(database, job_id)


async def test_a_reopened_job_without_missing_chunks_goes_to_finalise(database: Database) -> None:
    job_id = await planned_job(database, 1)
    await run_chunk(database, job_id, 0)
    async with database.write() as session:
        assert await failures.fail_job(session, job_id, WhisperCrashError(), "token")
        assert await failures.replay(session, job_id, "token") == [WakeUp(job_id, None, 0)]
    await invariants.check(database)
    assert await finalise(database, job_id)


async def test_a_cancelled_job_can_be_retried_by_its_owner_only(database: Database) -> None:
    job_id = await planned_job(database, 2)
    async with database.write() as session:
        assert not await failures.cancel_job(session, job_id, "somebody else")
        assert await failures.cancel_job(session, job_id, "local")
        assert not await failures.cancel_job(session, job_id, "local")
    async with database.write() as session:
        assert await failures.retry_job(session, job_id, "somebody else") is None
        assert indexes(await failures.retry_job(session, job_id, "local") or []) == [0, 1]
    await invariants.check(database)


async def test_an_unprepared_job_is_reopened_for_prepare(database: Database) -> None:
    job_id = await new_job(database)
    async with database.write() as session:
        assert await failures.cancel_job(session, job_id, "local")
        assert await failures.retry_job(session, job_id, "local") == [WakeUp(job_id, None, 0)]
    assert (await job(database, job_id)).status == JobStatus.PENDING


async def test_a_due_row_is_taken_by_one_scheduler(database: Database) -> None:
    expected = {await planned_job(database, 5) for _ in range(4)}
    for job_id in expected:
        await expire(database, job_id)

    async def take() -> list[WakeUp]:
        async with database.write() as session:
            return await schedule.reserve_due_chunks(session)

    due_rows = [row for rows in await asyncio.gather(*(take() for _ in range(4))) for row in rows]
    assert len(due_rows) == len(set(due_rows)) == 20
    assert {row.job_id for row in due_rows} == expected
    await invariants.check(database)


async def test_a_lapsed_lease_counts_its_run_lost_and_is_due_at_once(database: Database) -> None:
    job_id = await planned_job(database, 1)
    claimed = await claim(database, job_id)
    await expire(database, job_id)
    async with database.write() as session:
        assert await schedule.reserve_due_chunks(session) == [], "a held row has a lease and is not due"
    assert await lapse(database, job_id) == 1
    assert await lapse(database, job_id) == 0
    async with database.write() as session:
        assert len(await schedule.reserve_due_chunks(session)) == 1
    row = await chunk(database, job_id, 0)
    assert (row.status, row.holder, row.lost, row.publishes) == (JobStatus.PENDING, None, 1, 0)
    assert claimed is not None
    assert await commit(database, claimed) is not None, "the first commit wins, whichever claim makes it"


async def test_a_confirmed_publish_waits_longer_each_time(database: Database) -> None:
    job_id = await planned_job(database, 1)
    for publishes, seconds in ((0, 300), (1, 600), (4, 4800), (20, 21_600)):
        async with database.write() as session:
            await session.execute(update(Chunk).where(Chunk.job_id == job_id).values(publishes=publishes))
            await schedule.mark_published(session, [WakeUp(job_id, 0, 0)])
        row = await chunk(database, job_id, 0)
        assert row.due_at is not None
        assert abs((row.due_at - datetime.now(UTC)).total_seconds() - seconds) < 30
        assert row.publishes == publishes + 1


async def test_only_confirmed_publishes_count(database: Database) -> None:
    """After an outage of hours, the first wake-up that is published should be handled within minutes."""
    waiting = await planned_job(database, 1), await new_job(database)
    for _ in range(20):
        for job_id in waiting:
            await expire(database, job_id)
        async with database.write() as session:
            rows = [due.wake_up for due in await schedule.reserve_due_jobs(session)]
            rows += await schedule.reserve_due_chunks(session)
            assert len(rows) == 2
            await schedule.postpone(session, rows, 5.0)
        assert [await waits(database, row) for row in rows] == [(0, 5), (0, 5)]
    async with database.write() as session:
        await schedule.mark_published(session, rows)
    assert [await waits(database, row) for row in rows] == [(1, 300), (1, 300)]


async def waits(database: Database, row: WakeUp) -> tuple[int, int]:
    """Return the row's confirmed publishes and the seconds until it is due, in steps of five."""
    stored = await (job(database, row.job_id) if row.chunk_index is None else chunk(database, row.job_id, 0))
    assert stored.due_at is not None
    return stored.publishes, round((stored.due_at - datetime.now(UTC)).total_seconds() / 5 + 0.4) * 5


async def test_a_confirmed_publish_leaves_a_claimed_row_alone(database: Database) -> None:
    job_id = await planned_job(database, 1)
    await claim(database, job_id)
    before = (await chunk(database, job_id, 0)).due_at
    async with database.write() as session:
        await schedule.mark_published(session, [WakeUp(job_id, 0, 0)])
    assert (await chunk(database, job_id, 0)).due_at == before


async def test_job_rows_are_confirmed_too(database: Database) -> None:
    job_id = await new_job(database)
    async with database.write() as session:
        await schedule.mark_published(session, [WakeUp(job_id, None, 0)])
    due = (await job(database, job_id)).due_at
    assert due is not None
    assert due > datetime.now(UTC) + timedelta(seconds=200)


async def test_a_purged_queue_makes_unclaimed_rows_due(database: Database) -> None:
    job_id = await planned_job(database, 2)
    await claim(database, job_id, 0)
    async with database.write() as session:
        await schedule.mark_published(session, [WakeUp(job_id, 1, 0)])
        assert await schedule.republish_unclaimed(session) == 0, "published a moment ago"
    async with database.write() as session:
        await session.execute(update(Chunk).values(updated_at=after(-40)))
        assert await schedule.republish_unclaimed(session, jobs=False) == 1
    async with database.write() as session:
        assert indexes(await schedule.reserve_due_chunks(session)) == [1]


async def test_an_embedded_start_releases_everything(database: Database) -> None:
    job_id = await planned_job(database, 2)
    await claim(database, job_id, 0)
    async with database.write() as session:
        await schedule.release_all(session)
    async with database.write() as session:
        assert sorted(indexes(await schedule.reserve_due_chunks(session)), key=str) == [0, 1]
    await invariants.check(database)
