"""Invariants of the rows, checked after every step and every fault."""

from __future__ import annotations

from sqlalchemy import func, select

from core.database import Database
from core.domain.job import OPEN, JobStatus
from repositories.models import Chunk, Job


async def check(database: Database) -> None:
    """Check that exactly the unfinished jobs have a due row, their own or a chunk's, and that counters equal rows."""
    async with database.read() as session:
        for job in (await session.execute(select(Job))).scalars().all():
            chunks = (await session.execute(select(Chunk).where(Chunk.job_id == job.job_id))).scalars().all()
            completed = sum(chunk.status == JobStatus.COMPLETED for chunk in chunks)
            assert job.chunks_completed == completed, f"{job.chunks_completed} counted, {completed} there"
            if job.chunks_total is not None:
                assert len(chunks) == job.chunks_total
            check_leases(job, list(chunks))
            dues = [due for due in (job.due_at, *(chunk.due_at for chunk in chunks)) if due is not None]
            if job.status in OPEN and job.deleted_at is None:
                assert dues, f"{job.status} job with nothing due: {job.chunks_completed}/{job.chunks_total}"
            numbers = sorted(chunk.event_seq for chunk in chunks if chunk.status == JobStatus.COMPLETED)
            assert len(set(numbers)) == len(numbers), "an event number was used twice"


def check_leases(job: Job, chunks: list[Chunk]) -> None:
    """Check that held rows have a lease, and that rows of ended jobs are neither held nor due."""
    over = job.status not in OPEN or job.deleted_at is not None
    letter = job.status == JobStatus.FAILED and job.replay_token is not None and job.deleted_at is None
    rows: list[Job | Chunk] = [job, *chunks]
    for row in rows:
        assert row.holder is None or row.due_at is not None, f"{row.holder} holds a row without a lease"
        if over or row.status not in OPEN:
            assert row.holder is None, f"{row.holder} holds a row of a {job.status} job"
            assert row.due_at is None or (row is job and letter), f"due, though the job is {job.status}"


async def count(database: Database, job_id: str, status: JobStatus) -> int:
    async with database.read() as session:
        statement = select(func.count()).where(Chunk.job_id == job_id, Chunk.status == status)
        return (await session.execute(statement)).scalar_one()
