"""Publishing of due rows: reservations, confirmed and refused publishes, and the recovery of lost wake-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories import transitions
from repositories.batches import locked
from repositories.claims import WakeUp, unfetched, unprepared
from repositories.models import Chunk, Job
from repositories.state_machine import Table, apply

BATCH = 200
REPUBLISHED = 1000
"""Number of rows of one step that are made due at once after their queue was purged."""
REFUSED_DELAY = 5.0
"""Seconds after which a row is published again if the broker refused its wake-up."""


@dataclass(frozen=True, slots=True)
class DueJob:
    """A due row of a job. token: that of the dead letter to publish; None: the wake-up is to be published."""

    wake_up: WakeUp
    token: str | None


def _publishable() -> ColumnElement[bool]:
    """Return the condition that a job is open, or FAILED with a dead letter."""
    dead_letter = and_(Job.status == JobStatus.FAILED, Job.replay_token.is_not(None))
    return and_(or_(Job.status.in_(OPEN), dead_letter), Job.deleted_at.is_(None))


async def reserve_due_jobs(session: AsyncSession, limit: int = BATCH) -> list[DueJob]:
    """Reserve due jobs. Of several schedulers, each row is reserved by one."""
    due = and_(Job.due_at <= after(), Job.holder.is_(None), _publishable())
    oldest = select(Job.job_id).where(due).order_by(Job.due_at).limit(limit)
    statement = (
        transitions.reserved(Job)
        .where(Job.job_id.in_(locked(oldest)))
        .returning(Job.job_id, Job.failures, Job.status, Job.replay_token)
    )
    return [
        DueJob(WakeUp(row.job_id, None, row.failures), row.replay_token if row.status == JobStatus.FAILED else None)
        for row in (await apply(session, statement)).all()
    ]


async def reserve_due_chunks(session: AsyncSession, limit: int = BATCH) -> list[WakeUp]:
    """Reserve due chunks of running jobs. Of several schedulers, each row is reserved by one."""
    due = and_(Chunk.due_at <= after(), transitions.reserved.applies(Chunk))
    oldest = (
        select(Chunk.job_id, Chunk.chunk_index)
        .join(Job, Job.job_id == Chunk.job_id)
        .where(due, Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None))
        .order_by(Chunk.due_at)
        .limit(limit)
    )
    statement = (
        transitions.reserved(Chunk)
        .where(tuple_(Chunk.job_id, Chunk.chunk_index).in_(locked(oldest, of=Chunk)))
        .returning(Chunk.job_id, Chunk.chunk_index, Chunk.failures)
    )
    return [WakeUp(*row) for row in (await apply(session, statement)).all()]


def _awaits_attempt(table: Table, rows: Sequence[WakeUp]) -> ColumnElement[bool]:
    """Return the condition that a row is one of `rows` and still waits for the same attempt."""
    if table is Job:
        keys = [(row.job_id, row.failures) for row in rows if row.chunk_index is None]
        return and_(tuple_(Job.job_id, Job.failures).in_(keys), Job.due_at.is_not(None))
    chunk_keys = [(row.job_id, row.chunk_index, row.failures) for row in rows if row.chunk_index is not None]
    return and_(tuple_(Chunk.job_id, Chunk.chunk_index, Chunk.failures).in_(chunk_keys), Chunk.due_at.is_not(None))


async def mark_published(session: AsyncSession, rows: Sequence[WakeUp], age: float = 0.0) -> None:
    """Count confirmed publishes and delay the next ones. Rows that are claimed or finished are left alone.

    age: seconds since the publishes. Rows changed since then are left alone too: a row that was handed back meanwhile
    has a time of its own.
    """
    for table in _tables(rows):
        unchanged = (_awaits_attempt(table, rows), table.updated_at <= after(-age))
        await apply(session, transitions.published(table).where(*unchanged))


async def postpone(session: AsyncSession, rows: Sequence[WakeUp], delay: float) -> None:
    """Make rows whose wake-ups the broker refused due again in `delay` seconds."""
    for table in _tables(rows):
        await apply(session, transitions.postponed(table, delay).where(_awaits_attempt(table, rows)))


def _tables(rows: Sequence[WakeUp]) -> list[Table]:
    """Return the tables of the rows, chunks first."""
    indexes = [row.chunk_index for row in rows]
    return [Chunk] * any(index is not None for index in indexes) + [Job] * any(index is None for index in indexes)


async def mark_dead_letter_published(session: AsyncSession, job_id: str, token: str) -> None:
    """Record the confirmed publish of the job's dead letter."""
    await apply(session, transitions.dead_letter_published(Job).where(Job.job_id == job_id, Job.replay_token == token))


async def republish_unclaimed(
    session: AsyncSession,
    *,
    jobs: bool = True,
    fetches: bool = True,
    finalises: bool = True,
    chunks: bool = True,
    older_than: float = 30.0,
    limit: int = REPUBLISHED,
) -> int:
    """Make rows due whose messages were purged from their queue, at most `limit` of each step; return their number.

    These are rows published over `older_than` seconds ago and not claimed since. Each flag selects the queue of one
    step. Rows that were put off have no message and are left alone. Boosted messages of the queue are lost as well,
    so its jobs may be boosted again.
    """
    finalised = and_(Job.status == JobStatus.PROCESSING, Job.chunks_completed == Job.chunks_total)
    steps: list[tuple[bool, Table, ColumnElement[bool]]] = [
        (jobs, Job, and_(unprepared(), Job.put_off_at.is_(None), or_(Job.claim == 0, Job.failures == 0))),
        (fetches, Job, and_(unfetched(), Job.put_off_at.is_(None), Job.claim == 0)),
        (finalises, Job, and_(finalised, Job.failures == 0)),
        (chunks, Chunk, Chunk.claim == 0),
    ]
    count = 0
    for _, table, step in (selected for selected in steps if selected[0]):
        unclaimed = (table.due_at > after(), table.publishes > 0, table.updated_at <= after(-older_than))
        key = (table.job_id,) if table is Job else (Chunk.job_id, Chunk.chunk_index)
        lost = locked(select(*key).where(step, *unclaimed).limit(limit))
        rows = Job.job_id.in_(lost) if table is Job else tuple_(*key).in_(lost)
        statement = transitions.made_due(table).where(rows).returning(table.job_id)
        count += len((await apply(session, statement)).all())
        boosted = (Job.boosted_at <= after(-older_than), Job.status.in_(OPEN), Job.deleted_at.is_(None))
        queue = step if table is Job else Job.plan.is_not(None)
        await apply(session, update(Job).where(*boosted, queue).values(boosted_at=None))
    return count


async def clear_ended(session: AsyncSession, limit: int = BATCH) -> int:
    """Clear `due_at` of rows that have ended, or whose job has, among the `limit` longest overdue; return their number.

    Only older versions leave such rows.
    """
    jobs = select(Job.job_id).where(Job.due_at <= after()).order_by(Job.due_at).limit(limit).subquery()
    columns = (Chunk.job_id, Chunk.chunk_index, Chunk.status)
    oldest = select(*columns).where(Chunk.due_at <= after()).order_by(Chunk.due_at).limit(limit).subquery()
    ended = or_(Job.status.not_in(OPEN), Job.deleted_at.is_not(None), oldest.c.status.not_in(OPEN))
    chunks = select(oldest.c.job_id, oldest.c.chunk_index).join(Job, Job.job_id == oldest.c.job_id).where(ended)
    overdue: list[tuple[Table, ColumnElement[bool]]] = [
        (Job, and_(Job.job_id.in_(select(jobs.c.job_id)), ~_publishable())),
        (Chunk, tuple_(Chunk.job_id, Chunk.chunk_index).in_(chunks)),
    ]
    count = 0
    for table, rows in overdue:
        statement = transitions.repaired(table).where(rows).returning(table.job_id)
        count += len((await apply(session, statement)).all())
    return count


async def release_all(session: AsyncSession) -> None:
    """Make every open row due at the start of the embedded mode, where no claim can be held.

    Messages in memory were lost, so dead letters are made due as well.
    """
    await apply(session, transitions.dead_letter_made_due(Job).where(Job.replay_token.is_not(None)))
    for table in (Job, Chunk):
        await apply(session, transitions.made_due(table).where(table.due_at.is_not(None)))
        await apply(session, transitions.lapsed(table).where(table.due_at.is_not(None)))
