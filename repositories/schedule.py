"""`due_at`, the one clock of recovery: what may be published again, by anybody, and what a confirmed publish means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, case, cast, literal, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.claims import Released
from repositories.models import Chunk, Job

BATCH = 200
RESERVE = 30.0
"""Seconds that a row taken by a scheduler waits for its publish to be confirmed."""
FIRST_WAIT, LONGEST_WAIT = 300.0, 21_600.0
"""Seconds a confirmed publish may go unclaimed: 5 min, doubled at each publish, up to 6 h."""


@dataclass(frozen=True, slots=True)
class DueJob:
    """What the job's row wants next: its dead letter (`token`), its Finalise, or its Prepare."""

    released: Released
    token: str | None
    finalise: bool


def _waiting_job() -> ColumnElement[bool]:
    dead_letter = and_(Job.status == JobStatus.FAILED, Job.replay_token.is_not(None))
    return and_(or_(Job.status.in_(OPEN), dead_letter), Job.deleted_at.is_(None))


def _taken(row: type[Job] | type[Chunk]) -> dict[str, Any]:
    return {
        "due_at": after(RESERVE),
        "publishes": row.publishes + 1,
        "lost": row.lost + case((row.holder.is_(None), 0), else_=1),
        "holder": None,
        "updated_at": after(),
    }


async def take_due_jobs(session: AsyncSession, limit: int = BATCH) -> list[DueJob]:
    """Take job rows that are due; any number of schedulers may do so at once, each row goes to one of them."""
    due = Job.due_at <= after()
    some = select(Job.job_id).where(due, _waiting_job()).order_by(Job.due_at).limit(limit)
    statement = (
        update(Job)
        .where(Job.job_id.in_(some.scalar_subquery()), due)
        .values(**_taken(Job))
        .returning(Job.job_id, Job.failures, Job.chunks_total, Job.chunks_completed, Job.status, Job.replay_token)
        .execution_options(synchronize_session=False)
    )
    return [
        DueJob(
            Released(row.job_id, None, row.failures),
            row.replay_token if row.status == JobStatus.FAILED else None,
            row.chunks_total is not None and row.chunks_completed == row.chunks_total,
        )
        for row in (await session.execute(statement)).all()
    ]


async def take_due_chunks(session: AsyncSession, limit: int = BATCH) -> list[Released]:
    """Take chunk rows of running jobs that are due."""
    due = Chunk.due_at <= after()
    some = (
        select(Chunk.job_id, Chunk.chunk_index)
        .join(Job, Job.job_id == Chunk.job_id)
        .where(due, Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None), Chunk.status.in_(OPEN))
        .order_by(Chunk.due_at)
        .limit(limit)
    )
    statement = (
        update(Chunk)
        .where(tuple_(Chunk.job_id, Chunk.chunk_index).in_(some), due)
        .values(status=JobStatus.PENDING, **_taken(Chunk))
        .returning(Chunk.job_id, Chunk.chunk_index, Chunk.failures)
        .execution_options(synchronize_session=False)
    )
    return [Released(*row) for row in (await session.execute(statement)).all()]


def _confirmed(row: type[Job] | type[Chunk]) -> dict[str, Any]:
    doubled = FIRST_WAIT * cast(literal(1).bitwise_lshift(row.publishes - 1), Float)
    wait = case((row.publishes > 7, LONGEST_WAIT), else_=doubled)
    return {"due_at": after(wait), "updated_at": after()}


async def mark_published(session: AsyncSession, rows: Sequence[Released]) -> None:
    """The broker has these messages: nobody need publish them again soon. A claimed or finished row is left alone."""
    chunks = [row for row in rows if row.chunk_index is not None]
    if chunks:
        keys = [(row.job_id, row.chunk_index, row.failures) for row in chunks]
        await session.execute(
            update(Chunk)
            .where(
                tuple_(Chunk.job_id, Chunk.chunk_index, Chunk.failures).in_(keys),
                Chunk.holder.is_(None),
                Chunk.due_at.is_not(None),
            )
            .values(**_confirmed(Chunk))
            .execution_options(synchronize_session=False)
        )
    for row in rows:
        if row.chunk_index is None:
            await _mark_job_published(session, row)


async def _mark_job_published(session: AsyncSession, row: Released) -> None:
    await session.execute(
        update(Job)
        .where(
            Job.job_id == row.job_id,
            Job.failures == row.failures,
            Job.holder.is_(None),
            Job.due_at.is_not(None),
            Job.status.in_(OPEN),
        )
        .values(**_confirmed(Job))
        .execution_options(synchronize_session=False)
    )


async def mark_dead_letter_published(session: AsyncSession, job_id: str, token: str) -> None:
    await session.execute(
        update(Job)
        .where(Job.job_id == job_id, Job.status == JobStatus.FAILED, Job.replay_token == token)
        .values(due_at=None, updated_at=after())
        .execution_options(synchronize_session=False)
    )


async def republish_unclaimed(
    session: AsyncSession, *, jobs: bool = True, chunks: bool = True, older_than: float = 30.0
) -> int:
    """A queue was seen empty twice: its rows published over `older_than` seconds ago, never claimed, are due.

    Returns how many.
    """
    count = 0
    tables: list[type[Job] | type[Chunk]] = [Job] * jobs + [Chunk] * chunks
    for row in tables:
        result = await session.execute(
            update(row)
            .where(
                row.due_at > after(),
                row.claim == 0,
                row.publishes > 0,
                row.status.in_(OPEN),
                row.updated_at <= after(-older_than),
            )
            .values(due_at=after(), updated_at=after())
            .returning(row.job_id)
            .execution_options(synchronize_session=False)
        )
        count += len(result.all())
    return count


async def release_everything(session: AsyncSession) -> None:
    """Embedded start: nobody but this process exists, so no claim is alive and every open row is due at once.

    Dead letters went with the memory they lay in, so they are due again too.
    """
    await session.execute(
        update(Job)
        .where(Job.status == JobStatus.FAILED, Job.replay_token.is_not(None), Job.deleted_at.is_(None))
        .values(due_at=after(), updated_at=after())
        .execution_options(synchronize_session=False)
    )
    for row in (Job, Chunk):
        await session.execute(
            update(row)
            .where(row.status.in_(OPEN), row.due_at.is_not(None))
            .values(
                due_at=after(),
                lost=row.lost + case((row.holder.is_(None), 0), else_=1),
                holder=None,
                updated_at=after(),
            )
            .execution_options(synchronize_session=False)
        )
