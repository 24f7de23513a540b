"""Boosts: one waiting item of a job that starves is published at the top level, within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, case, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.claims import WakeUp
from repositories.models import Chunk, Job

BUDGET = 8
"""Boosted items that may wait at a time in one queue, over all machines: the next is boosted when one is claimed."""
FORGOTTEN = 21_600.0
"""Seconds after which a boost that nobody has claimed no longer counts: its message is lost, or nobody works."""


async def take_starving(session: AsyncSession, seconds: float, budget: int = BUDGET) -> list[WakeUp]:
    """Choose waiting items to boost, of the jobs that have gone longest without progress, for `seconds` at least.

    A job has one boosted item at a time. `budget` is the number that may wait in each queue, earlier ones included.
    """
    jobs = await _take(session, seconds, budget, Job.chunks_total.is_(None), Job.holder.is_(None))
    chunked = await _take(session, seconds, budget, Job.chunks_total.is_not(None), _has_waiting_chunk())
    own = [WakeUp(row.job_id, None, row.failures) for row in jobs]
    return own + await _first_waiting(session, [row.job_id for row in chunked])


async def _take(
    session: AsyncSession, seconds: float, budget: int, queue: ColumnElement[bool], waiting: ColumnElement[bool]
) -> Sequence[Row[str, int]]:
    count = select(func.count()).select_from(Job).where(_open(), queue, _outstanding())
    left = budget - (await session.execute(count)).scalar_one()
    if left <= 0:
        return []
    starving = and_(
        _open(),
        queue,
        waiting,
        Job.progressed_at <= after(-seconds),
        or_(Job.boosted_at.is_(None), Job.boosted_at <= after(-seconds)),
        ~_outstanding(),
        ~_claimed_since(after(-seconds)),
    )
    some = select(Job.job_id).where(starving).order_by(Job.progressed_at, Job.job_id).limit(left)
    statement = (
        update(Job)
        .where(Job.job_id.in_(some.scalar_subquery()), starving)
        .values(boosted_at=after(), updated_at=after())
        .returning(Job.job_id, Job.failures)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).all()


def _open() -> ColumnElement[bool]:
    """Unfinished jobs; no place in the queue would help one whose model nobody has."""
    return and_(Job.status.in_(OPEN), Job.deleted_at.is_(None), Job.model_missing_since.is_(None))


def _outstanding() -> ColumnElement[bool]:
    """The job's boosted item still waits: nothing of the job was claimed since."""
    return and_(Job.boosted_at.is_not(None), Job.boosted_at > after(-FORGOTTEN), ~_claimed_since(Job.boosted_at))


def _claimed_since(moment: Any) -> ColumnElement[bool]:
    """What waits in the job's present queue: its Prepare, or its chunks."""
    chunk = exists().where(Chunk.job_id == Job.job_id, Chunk.claimed_at >= moment)
    prepare = and_(Job.claimed_at.is_not(None), Job.claimed_at >= moment)
    return case((Job.chunks_total.is_(None), prepare), else_=chunk)


def _waiting() -> tuple[ColumnElement[bool], ...]:
    return Chunk.status == JobStatus.PENDING, Chunk.holder.is_(None), Chunk.due_at.is_not(None)


def _has_waiting_chunk() -> ColumnElement[bool]:
    return exists().where(Chunk.job_id == Job.job_id, *_waiting())


async def _first_waiting(session: AsyncSession, job_ids: list[str]) -> list[WakeUp]:
    first = (
        select(Chunk.job_id, func.min(Chunk.chunk_index).label("chunk_index"))
        .where(Chunk.job_id.in_(job_ids), *_waiting())
        .group_by(Chunk.job_id)
        .subquery()
    )
    same = and_(Chunk.job_id == first.c.job_id, Chunk.chunk_index == first.c.chunk_index)
    statement = select(Chunk.job_id, Chunk.chunk_index, Chunk.failures).join(first, same)
    return [WakeUp(*row) for row in (await session.execute(statement)).all()]
