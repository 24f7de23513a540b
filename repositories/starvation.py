"""Boosts: one waiting wake-up of each starving job is published at the top level, within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.batches import locked
from repositories.claims import WakeUp
from repositories.models import Chunk, Job
from repositories.state_machine import apply

BUDGET = 8
"""Boosted wake-ups that may wait in one queue at a time; when one is claimed, the next is boosted."""
CANDIDATES = 100
"""Number of oldest jobs without progress among which starving jobs are searched."""
BOOST_LIFETIME = 21_600.0
"""Seconds after which an unclaimed boost no longer counts, because its message is lost or no consumer runs."""


async def boost_starving(session: AsyncSession, seconds: float, budget: int = BUDGET) -> list[WakeUp]:
    """Choose wake-ups to boost, of jobs without progress for at least `seconds`, oldest jobs first.

    A job has one boosted wake-up at a time. budget: boosts that may wait in each queue, including earlier ones.
    """
    jobs = await _boost(session, seconds, budget, JobStatus.PENDING, Job.holder.is_(None))
    waiting = (Chunk.status == JobStatus.PENDING, Chunk.holder.is_(None), Chunk.due_at.is_not(None))
    # the planner would turn EXISTS into a join that reads all waiting chunks
    one = select(Chunk.chunk_index).where(Chunk.job_id == Job.job_id, *waiting).limit(1)
    has_waiting_chunk = one.correlate(Job).scalar_subquery().is_not(None)
    continued = and_(Job.chunks_total.is_(None), Job.holder.is_(None), Job.due_at.is_not(None))
    chunked = await _boost(session, seconds, budget, JobStatus.PROCESSING, or_(has_waiting_chunk, continued))
    first = (
        select(Chunk.job_id, func.min(Chunk.chunk_index).label("chunk_index"))
        .where(Chunk.job_id.in_([row.job_id for row in chunked]), *waiting)
        .group_by(Chunk.job_id)
        .subquery()
    )
    same_chunk = and_(Chunk.job_id == first.c.job_id, Chunk.chunk_index == first.c.chunk_index)
    chunks = select(Chunk.job_id, Chunk.chunk_index, Chunk.failures).join(first, same_chunk)
    rows = (await session.execute(chunks)).all()
    with_chunk = {row.job_id for row in rows}
    unprepared = [*jobs, *(job for job in chunked if job.job_id not in with_chunk)]
    return [*(WakeUp(job.job_id, None, job.failures) for job in unprepared), *(WakeUp(*row) for row in rows)]


async def _boost(
    session: AsyncSession, seconds: float, budget: int, status: JobStatus, waiting: ColumnElement[bool]
) -> Sequence[Row[Any]]:
    """Boost jobs of a status: a PENDING one has no plan, a PROCESSING one waits for a chunk or the rest of its plan."""
    queue = Job.status == status
    count = select(func.count()).select_from(Job).where(_open(), queue, _outstanding())
    left = budget - (await session.execute(count)).scalar_one()
    if left <= 0:
        return []
    quiet = and_(
        _open(),
        queue,
        Job.progressed_at <= after(-seconds),
        or_(Job.boosted_at.is_(None), Job.boosted_at <= after(-seconds)),
    )
    # the candidates are a subquery with a limit, so that the planner reads no more of them
    first = select(Job.job_id, Job.created_at).where(quiet).order_by(Job.created_at, Job.job_id).limit(CANDIDATES)
    candidates = first.subquery()
    starving = (waiting, ~_outstanding(), ~_claimed_since(after(-seconds)))
    oldest = (
        select(Job.job_id)
        .join(candidates, candidates.c.job_id == Job.job_id)
        .where(*starving)
        .order_by(candidates.c.created_at, candidates.c.job_id)
        .limit(left)
    )
    statement = (
        update(Job)
        .where(Job.job_id.in_(locked(oldest, of=Job)))
        .values(boosted_at=after(), updated_at=after())
        .returning(Job.job_id, Job.failures, Job.created_at)
    )
    rows = (await apply(session, statement)).all()
    return sorted(rows, key=lambda row: (row.created_at, row.job_id))


def _open() -> ColumnElement[bool]:
    """Return the condition that a job is unfinished and not waiting for its model, which a boost would not help."""
    return and_(Job.status.in_(OPEN), Job.deleted_at.is_(None), Job.model_missing_since.is_(None))


def _outstanding() -> ColumnElement[bool]:
    """Return the condition that the job's boosted wake-up still waits: no row of the job was claimed since."""
    return and_(Job.boosted_at.is_not(None), Job.boosted_at > after(-BOOST_LIFETIME), ~_claimed_since(Job.boosted_at))


def _claimed_since(moment: Any) -> ColumnElement[bool]:
    """Return the condition that the job (until its plan is closed) or one of its chunks was claimed since `moment`."""
    chunk = exists().where(Chunk.job_id == Job.job_id, Chunk.claimed_at >= moment)
    prepare = and_(Job.chunks_total.is_(None), Job.claimed_at.is_not(None), Job.claimed_at >= moment)
    return or_(prepare, chunk)
