"""Figures of the queues and of unfinished jobs, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import text, update

from core.database import Database, after
from core.domain.job import Priority
from core.errors import CorruptedFileError
from core.messaging.port import QueueName
from repositories import claims, failures, leases, queue_statistics
from repositories.claims import ClaimRequest
from repositories.models import Job
from repositories.queue_statistics import OpenJobs
from tests.contract.rows import LEASE, WORKER, new_job, planned_job, run_chunk


async def queue_rows(database: Database) -> dict[tuple[QueueName, str, str], int]:
    async with database.read() as session:
        rows = await queue_statistics.count_queue_rows(session)
    return {(row.queue, row.priority, row.state): row.count for row in rows}


async def test_rows_are_counted_by_queue_priority_and_state(database: Database) -> None:
    for priority in Priority:
        await new_job(database, priority=priority)
    await new_job(database, priority=Priority.HIGH, audio_key=None, media_url="http://media.example/a")
    running = await new_job(database, priority=Priority.LOW)
    async with database.write() as session:
        assert await claims.claim_prepare(session, running, 0, ClaimRequest(WORKER, LEASE))
    put_off = await new_job(database, priority=Priority.LOW)
    async with database.write() as session:
        await session.execute(update(Job).where(Job.job_id == put_off).values(put_off_at=after()))
    done = await planned_job(database, 1, priority=Priority.HIGH)
    await run_chunk(database, done, 0)
    await planned_job(database, 3)
    assert await queue_rows(database) == {
        (QueueName.JOBS, "high", "waiting"): 1,
        (QueueName.JOBS, "normal", "waiting"): 1,
        (QueueName.JOBS, "low", "waiting"): 1,
        (QueueName.JOBS, "low", "running"): 1,
        (QueueName.JOBS, "low", "put_off"): 1,
        (QueueName.FETCH, "high", "waiting"): 1,
        (QueueName.FINALISE, "high", "waiting"): 1,
        (QueueName.CHUNKS, "normal", "waiting"): 3,
    }


async def test_the_oldest_row_is_the_one_without_progress_for_longest(database: Database) -> None:
    first, second = await new_job(database), await new_job(database)
    async with database.write() as session:
        for job_id, seconds in ((first, 500), (second, 100)):
            await session.execute(update(Job).where(Job.job_id == job_id).values(progressed_at=after(-seconds)))
    async with database.read() as session:
        (row,) = await queue_statistics.count_queue_rows(session)
        now = await leases.current_time(session)
    assert row.count == 2
    assert 500 <= (now - row.oldest).total_seconds() < 560


async def test_counts_beyond_the_sample_are_estimates(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_statistics, "SAMPLED", 3)
    for _ in range(6):
        running = await new_job(database)
    async with database.write() as session:
        assert await claims.claim_prepare(session, running, 0, ClaimRequest(WORKER, LEASE))
        # running jobs are those submitted first
        await session.execute(update(Job).where(Job.job_id == running).values(created_at=after(-1000)))
    await new_job(database, priority=Priority.HIGH)
    await planned_job(database, 8)
    async with database.write() as session:
        await session.execute(text("ANALYZE"))
    assert await queue_rows(database) == {
        (QueueName.JOBS, "high", "waiting"): 1,
        (QueueName.JOBS, "normal", "waiting"): 5,
        (QueueName.JOBS, "normal", "running"): 1,
        (QueueName.CHUNKS, "normal", "waiting"): 8,
    }
    async with database.read() as session:
        pending, processing = await queue_statistics.count_open_jobs(session)
    assert (pending.count, processing.count, processing.chunks_left) == (7, 1, 8)


async def test_ended_jobs_wait_in_no_queue(database: Database) -> None:
    job_id = await planned_job(database, 2)
    async with database.write() as session:
        assert await failures.fail_job(session, job_id, CorruptedFileError(), "token")
    assert await queue_rows(database) == {}
    async with database.read() as session:
        assert await queue_statistics.count_open_jobs(session) == [
            OpenJobs("PENDING", 0, 0, 0.0),
            OpenJobs("PROCESSING", 0, 0, 0.0),
        ]


async def test_open_jobs_have_what_is_left_of_them(database: Database) -> None:
    await new_job(database)
    job_id = await planned_job(database, 4)
    await run_chunk(database, job_id, 0)
    async with database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(audio_duration_seconds=100.0))
    async with database.read() as session:
        pending, processing = await queue_statistics.count_open_jobs(session)
        assert await queue_statistics.count_waiting_webhooks(session) == 0
    assert (pending.status, pending.count, pending.chunks_left) == ("PENDING", 1, 0)
    assert (processing.status, processing.count, processing.chunks_left) == ("PROCESSING", 1, 3)
    assert processing.audio_left == pytest.approx(75.0)


async def test_no_query_reads_ended_rows(database: Database) -> None:
    """SQLite's plans name the indexes; PostgreSQL chooses by the tables' sizes, which are small here."""
    if not database.sqlite:
        pytest.skip("plans of SQLite")
    async with database.read() as session:
        statements = [
            queue_statistics.waiting_jobs(Priority.HIGH),
            queue_statistics.unfinalised_jobs(),
            queue_statistics.chunk_rows(),
        ]
        for statement in statements:
            sql = statement.compile(database.engine, compile_kwargs={"literal_binds": True})
            plan = "\n".join(row[3] for row in await session.execute(text(f"EXPLAIN QUERY PLAN {sql}")))
            assert "SCAN jobs" not in plan, plan
            assert "SCAN chunks" not in plan, plan
