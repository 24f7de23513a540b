"""Jobs that wait too long, or run without progress."""

from __future__ import annotations

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.claims import Released
from repositories.models import Chunk, Job

LIMIT = 100


async def take_starving(session: AsyncSession, seconds: float) -> list[Released]:
    """One waiting item of each job without progress for `seconds`, at most once per `seconds` and job."""
    quiet = (
        Job.model_missing_since.is_(None),  # no place in the queue would help it
        Job.progressed_at <= after(-seconds),
        or_(Job.boosted_at.is_(None), Job.boosted_at <= after(-seconds)),
    )
    some = select(Job.job_id).where(Job.status.in_(OPEN), Job.deleted_at.is_(None), *quiet).limit(LIMIT)
    statement = (
        update(Job)
        .where(Job.job_id.in_(some.scalar_subquery()), *quiet)
        .values(boosted_at=after(), updated_at=after())
        .returning(Job.job_id, Job.failures, Job.chunks_total, Job.chunks_completed, Job.holder)
        .execution_options(synchronize_session=False)
    )
    rows = (await session.execute(statement)).all()
    own = [
        Released(row.job_id, None, row.failures)
        for row in rows
        if row.holder is None and row.chunks_total in (None, row.chunks_completed)
    ]
    chunked = [row.job_id for row in rows if row.chunks_total not in (None, row.chunks_completed)]
    return own + await _first_waiting(session, chunked)


async def _first_waiting(session: AsyncSession, job_ids: list[str]) -> list[Released]:
    waiting = (Chunk.status == JobStatus.PENDING, Chunk.holder.is_(None), Chunk.due_at.is_not(None))
    first = (
        select(Chunk.job_id, func.min(Chunk.chunk_index).label("chunk_index"))
        .where(Chunk.job_id.in_(job_ids), *waiting)
        .group_by(Chunk.job_id)
        .subquery()
    )
    same = and_(Chunk.job_id == first.c.job_id, Chunk.chunk_index == first.c.chunk_index)
    statement = select(Chunk.job_id, Chunk.chunk_index, Chunk.failures).join(first, same)
    return [Released(*row) for row in (await session.execute(statement)).all()]


async def stuck(session: AsyncSession, seconds: float) -> list[str]:
    """Jobs in which something runs and nothing has progressed for `seconds`."""
    chunk_runs = exists().where(Chunk.job_id == Job.job_id, Chunk.holder.is_not(None))
    statement = select(Job.job_id).where(
        Job.status.in_(OPEN),
        Job.deleted_at.is_(None),
        Job.progressed_at <= after(-seconds),
        or_(Job.holder.is_not(None), chunk_runs),
    )
    return list((await session.execute(statement.limit(LIMIT))).scalars())
