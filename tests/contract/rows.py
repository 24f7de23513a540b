"""Builders of rows for the suites on claims and queries."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import select, update

from core.database import Database, after
from core.domain import keys
from core.domain.job import Priority
from core.domain.job_options import JobOptions
from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from repositories import claims, commits, jobs, leases, plans
from repositories.claims import ClaimedChunk, ClaimRequest, WakeUp
from repositories.commits import ChunkOutcome, Committed
from repositories.models import Chunk, Job
from repositories.plans import Plan

WORKER = "worker-1"
LEASE = 60.0


async def new_job(database: Database, owner: str = "local", **changes: Any) -> str:
    values: dict[str, Any] = {
        "job_id": str(uuid.uuid4()),
        "owner": owner,
        "language": "en",
        "model": "demo-q5_0",
        "priority": Priority.NORMAL,
        "options": JobOptions(),
        "original_filename": "a.wav",
        "audio_key": "uploads/x/a.wav",
        "file_size": 1024 * 1024,
        **changes,
    }
    async with database.write() as session:
        return (await jobs.create(session, jobs.NewJob(**values))).job_id


def plan(chunks: int, number: int = 1, first_release: int = plans.FIRST_RELEASE, job_id: str = "x") -> Plan:
    second = SAMPLE_RATE
    planned = tuple(PlannedChunk((Span(i * second, (i + 1) * second),)) for i in range(chunks))
    return Plan(
        number,
        keys.working_key(job_id, number),
        float(chunks),
        planned,
        "demo-q5_0",
        JobOptions(),
        0.1,
        0.2,
        first_release,
    )


async def planned_job(database: Database, chunks: int, *, first_release: int = 64, **changes: Any) -> str:
    job_id = await new_job(database, **changes)
    async with database.write() as session:
        assert await claims.claim_prepare(session, job_id, 0, ClaimRequest(WORKER, LEASE))
    async with database.write() as session:
        assert await plans.store_plan(session, job_id, plan(chunks, 1, first_release, job_id)) is not None
    return job_id


async def claim(
    database: Database, job_id: str, index: int = 0, failures: int = 0, worker: str = WORKER
) -> ClaimedChunk | None:
    async with database.write() as session:
        return await claims.claim_chunk(session, job_id, index, failures, ClaimRequest(worker, LEASE))


OUTCOME = ChunkOutcome([{"start": 0.0, "end": 1.0, "text": "hello", "confidence": 0.9}], 0.5, "en", {})


async def commit(database: Database, claimed: ClaimedChunk, pin: bool = False) -> Committed | None:
    async with database.write() as session:
        return await commits.commit_chunk(session, claimed, OUTCOME, pin_language=pin)


async def run_chunk(database: Database, job_id: str, index: int) -> Committed:
    claimed = await claim(database, job_id, index)
    assert claimed is not None
    done = await commit(database, claimed)
    assert done is not None
    return done


async def job(database: Database, job_id: str) -> Job:
    async with database.read() as session:
        return (await session.execute(select(Job).where(Job.job_id == job_id))).scalar_one()


async def chunk(database: Database, job_id: str, index: int) -> Chunk:
    async with database.read() as session:
        statement = select(Chunk).where(Chunk.job_id == job_id, Chunk.chunk_index == index)
        return (await session.execute(statement)).scalar_one()


async def expire(database: Database, job_id: str) -> None:
    """Make all due times of the job pass."""
    async with database.write() as session:
        for row in (Job, Chunk):
            await session.execute(
                update(row).where(row.job_id == job_id, row.due_at.is_not(None)).values(due_at=after(-1))
            )


async def lapse(database: Database, job_id: str) -> int:
    """Expire the job's leases, let the scheduler release them, and return their number."""
    await expire(database, job_id)
    async with database.write() as session:
        return await leases.release_lapsed(session, await leases.current_time(session))


async def finalise(database: Database, job_id: str) -> bool:
    done = commits.JobOutcome("results/x/transcription.json", "hello", 0.9, 1.0, 0, {})
    async with database.write() as session:
        return await commits.complete_job(session, job_id, done) is not None


def indexes(wake_ups: list[WakeUp] | tuple[WakeUp, ...]) -> list[int | None]:
    return [row.chunk_index for row in wake_ups]
