"""`due_at`, the one clock of recovery: what may be published again, by anybody, and what a confirmed publish means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Float, and_, case, cast, literal, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.claims import WakeUp, unfetched, unprepared
from repositories.models import Chunk, Job

BATCH = 200
RESERVE = 30.0
"""Seconds that a row taken by a scheduler waits for its publish to be confirmed."""
REFUSED = 5.0
"""Seconds after which a row is published again that the broker refused."""
FIRST_WAIT, LONGEST_WAIT = 300.0, 21_600.0
"""Seconds a confirmed publish may go unclaimed: 5 min, doubled at each confirmed publish, up to 6 h."""


@dataclass(frozen=True, slots=True)
class DueJob:
    """What the job's row wants next: its dead letter (`token`), its Finalise, or its Prepare."""

    released: WakeUp
    token: str | None
    finalise: bool


def _waiting_job() -> ColumnElement[bool]:
    dead_letter = and_(Job.status == JobStatus.FAILED, Job.replay_token.is_not(None))
    return and_(or_(Job.status.in_(OPEN), dead_letter), Job.deleted_at.is_(None))


def _due(row: type[Job] | type[Chunk]) -> ColumnElement[bool]:
    """A row that is held has a lease instead, which `leases.release_lapsed` ends."""
    return and_(row.due_at <= after(), row.holder.is_(None))


def _taken() -> dict[str, Any]:
    return {"due_at": after(RESERVE), "updated_at": after()}


async def take_due_jobs(session: AsyncSession, limit: int = BATCH) -> list[DueJob]:
    """Take job rows that are due; any number of schedulers may do so at once, each row goes to one of them."""
    due = and_(_due(Job), _waiting_job())
    some = select(Job.job_id).where(due).order_by(Job.due_at).limit(limit).with_for_update(skip_locked=True)
    statement = (
        update(Job)
        .where(Job.job_id.in_(some.scalar_subquery()), due)
        .values(**_taken())
        .returning(Job.job_id, Job.failures, Job.chunks_total, Job.chunks_completed, Job.status, Job.replay_token)
        .execution_options(synchronize_session=False)
    )
    return [
        DueJob(
            WakeUp(row.job_id, None, row.failures),
            row.replay_token if row.status == JobStatus.FAILED else None,
            row.chunks_total is not None and row.chunks_completed == row.chunks_total,
        )
        for row in (await session.execute(statement)).all()
    ]


async def take_due_chunks(session: AsyncSession, limit: int = BATCH) -> list[WakeUp]:
    """Take chunk rows of running jobs that are due."""
    due = and_(_due(Chunk), Chunk.status.in_(OPEN))
    some = (
        select(Chunk.job_id, Chunk.chunk_index)
        .join(Job, Job.job_id == Chunk.job_id)
        .where(due, Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None))
        .order_by(Chunk.due_at)
        .limit(limit)
        .with_for_update(of=Chunk, skip_locked=True)
    )
    statement = (
        update(Chunk)
        .where(tuple_(Chunk.job_id, Chunk.chunk_index).in_(some), due)
        .values(status=JobStatus.PENDING, **_taken())
        .returning(Chunk.job_id, Chunk.chunk_index, Chunk.failures)
        .execution_options(synchronize_session=False)
    )
    return [WakeUp(*row) for row in (await session.execute(statement)).all()]


def _confirmed(row: type[Job] | type[Chunk]) -> dict[str, Any]:
    doubled = FIRST_WAIT * cast(literal(1).bitwise_lshift(row.publishes), Float)
    wait = case((row.publishes > 6, LONGEST_WAIT), else_=doubled)
    return {"due_at": after(wait), "publishes": row.publishes + 1, "updated_at": after()}


async def mark_published(session: AsyncSession, rows: Sequence[WakeUp]) -> None:
    """Count confirmed publishes and put the next ones off. A claimed or finished row is left alone."""
    await _write_waiting(session, rows, _confirmed(Job), _confirmed(Chunk))


async def postpone(session: AsyncSession, rows: Sequence[WakeUp], delay: float) -> None:
    """Publish these rows again in `delay` seconds: nothing of theirs reached the broker."""
    values = {"due_at": after(delay), "updated_at": after()}
    await _write_waiting(session, rows, values, values)


async def _write_waiting(
    session: AsyncSession, rows: Sequence[WakeUp], of_jobs: dict[str, Any], of_chunks: dict[str, Any]
) -> None:
    """Write to those of the rows that still wait for the same attempt."""
    chunks = [(row.job_id, row.chunk_index, row.failures) for row in rows if row.chunk_index is not None]
    jobs = [(row.job_id, row.failures) for row in rows if row.chunk_index is None]
    waiting = (Chunk.holder.is_(None), Chunk.due_at.is_not(None), Chunk.status.in_(OPEN))
    if chunks:
        await session.execute(
            update(Chunk)
            .where(tuple_(Chunk.job_id, Chunk.chunk_index, Chunk.failures).in_(chunks), *waiting)
            .values(**of_chunks)
            .execution_options(synchronize_session=False)
        )
    waiting = (Job.holder.is_(None), Job.due_at.is_not(None), Job.status.in_(OPEN))
    if jobs:
        await session.execute(
            update(Job)
            .where(tuple_(Job.job_id, Job.failures).in_(jobs), *waiting)
            .values(**of_jobs)
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
    session: AsyncSession,
    *,
    jobs: bool = True,
    fetches: bool = True,
    finalises: bool = True,
    chunks: bool = True,
    older_than: float = 30.0,
) -> int:
    """Make rows due whose queue was seen empty twice: published over `older_than` seconds ago and not claimed since.

    Each flag names the queue of one step; rows whose messages wait in another one are left alone, and so are rows that
    were put off, which have no message.

    What was boosted in it is gone too, so its jobs may be boosted again. Returns how many rows are due.
    """
    count = 0
    lost: list[tuple[type[Job] | type[Chunk], ColumnElement[bool]]] = []
    lost += [(Job, and_(unprepared(), Job.put_off_at.is_(None), or_(Job.claim == 0, Job.failures == 0)))] * jobs
    lost += [(Job, and_(unfetched(), Job.put_off_at.is_(None), Job.claim == 0))] * fetches
    lost += [(Job, and_(Job.chunks_completed == Job.chunks_total, Job.failures == 0))] * finalises
    lost += [(Chunk, Chunk.claim == 0)] * chunks
    for row, step in lost:
        result = await session.execute(
            update(row)
            .where(
                row.due_at > after(),
                step,
                row.holder.is_(None),
                row.publishes > 0,
                row.status.in_(OPEN),
                row.updated_at <= after(-older_than),
            )
            .values(due_at=after(), updated_at=after())
            .returning(row.job_id)
            .execution_options(synchronize_session=False)
        )
        count += len(result.all())
        planned = step if row is Job else Job.chunks_total.is_not(None)
        await session.execute(
            update(Job)
            .where(Job.boosted_at <= after(-older_than), Job.status.in_(OPEN), planned)
            .values(boosted_at=None)
            .execution_options(synchronize_session=False)
        )
    return count


async def clear_ended(session: AsyncSession, limit: int = BATCH) -> int:
    """Take `due_at` from overdue rows that nobody may publish: their job, or they themselves, have ended.

    No statement of this version leaves one; other versions did. Returns how many.
    """
    jobs = select(Job.job_id).where(Job.due_at <= after(), ~_waiting_job()).limit(limit).scalar_subquery()
    ended = or_(Job.status.not_in(OPEN), Job.deleted_at.is_not(None), Chunk.status.not_in(OPEN))
    chunks = (
        select(Chunk.job_id, Chunk.chunk_index)
        .join(Job, Job.job_id == Chunk.job_id)
        .where(Chunk.due_at <= after(), ended)
        .limit(limit)
    )
    cleared = 0
    rows: list[tuple[type[Job] | type[Chunk], ColumnElement[bool]]] = [
        (Job, and_(Job.job_id.in_(jobs), ~_waiting_job())),
        (Chunk, tuple_(Chunk.job_id, Chunk.chunk_index).in_(chunks)),
    ]
    for row, some in rows:
        statement = update(row).where(some, row.due_at <= after()).values(due_at=None, holder=None)
        found = await session.execute(statement.returning(row.job_id).execution_options(synchronize_session=False))
        cleared += len(found.all())
    return cleared


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
