"""Figures of the queues and of unfinished jobs.

Every query reads at most SAMPLED rows of an index that has unfinished rows only. If there are more, counts and sums are
extrapolated to the number of rows that the planner estimates, and the oldest row is the oldest of those that were read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import UtcDateTime
from core.domain.job import OPEN, JobStatus, Priority
from core.messaging.port import QueueName
from repositories import job_statistics
from repositories.estimates import estimated_rows
from repositories.models import UNFINALISED_ROWS, WAITING_ROWS, Chunk, Job, WebhookDelivery

WAITING, RUNNING, PUT_OFF = "waiting", "running", "put_off"
STATES = (WAITING, RUNNING, PUT_OFF)
SAMPLED = 1000
"""Number of rows that a query reads: the oldest jobs, or the chunks and webhooks that are due first."""


@dataclass(frozen=True, slots=True)
class QueueRows:
    """Rows of one queue's step, of jobs of one priority, in one state.

    state: `waiting` for a consumer, `running` on one, or `put_off` until their owner has less work in progress. oldest:
    time of the last progress of the job that has waited longest.
    """

    queue: QueueName
    priority: str
    state: str
    count: int
    oldest: datetime


@dataclass(frozen=True, slots=True)
class OpenJobs:
    """Unfinished jobs of one status. chunks_left, audio_left (seconds): not transcribed yet, of jobs with a plan."""

    status: str
    count: int
    chunks_left: int
    audio_left: float


async def count_queue_rows(session: AsyncSession) -> list[QueueRows]:
    """Return the rows that wait or run, by queue, priority and state. Released chunks count, not those behind them."""
    samples = [
        *((waiting_jobs(priority), f"jobs WHERE {WAITING_ROWS} AND priority = '{priority}'") for priority in Priority),
        (unfinalised_jobs(), f"jobs WHERE {UNFINALISED_ROWS}"),
        (chunk_rows(), "chunks WHERE due_at IS NOT NULL"),
    ]
    rows: dict[tuple[QueueName, str, str], QueueRows] = {}
    for sample, table in samples:
        # grouped around a subquery: PostgreSQL does not recognise two expressions with parameters as the same
        row = sample.limit(SAMPLED).subquery().c
        group = (row.queue, row.priority, row.state)
        statement = select(*group, func.count(), func.min(row.since)).group_by(*group)
        found = [QueueRows(QueueName(each[0]), *each[1:]) for each in (await session.execute(statement)).all()]
        for new in await _extrapolated(session, found, table):
            key = (new.queue, new.priority, new.state)
            old = rows.get(key)
            rows[key] = (
                new if old is None else replace(new, count=old.count + new.count, oldest=min(old.oldest, new.oldest))
            )
    return list(rows.values())


async def _extrapolated(session: AsyncSession, rows: list[QueueRows], table: str) -> list[QueueRows]:
    """Raise the counts of a sample to those of the table. Rows that run come first in a sample, so all are in it."""
    sampled = sum(row.count for row in rows)
    if sampled < SAMPLED:
        return rows
    running = sum(row.count for row in rows if row.state == RUNNING)
    factor = (await estimated_rows(session, table) - running) / max(sampled - running, 1)
    return [row if row.state == RUNNING else replace(row, count=round(row.count * max(factor, 1.0))) for row in rows]


def waiting_jobs(priority: Priority) -> Select[Any]:
    """Return the query for the queue, priority, state and last progress of jobs without a plan, oldest first."""
    fetched = Job.minio_audio_path.is_not(None) | Job.media_url.is_(None)
    queue = case((fetched, QueueName.JOBS.value), else_=QueueName.FETCH.value)
    state = case((Job.holder.is_not(None), RUNNING), (Job.put_off_at.is_not(None), PUT_OFF), else_=WAITING)
    # all of them are due, but that condition would let the planner read all of the index on `due_at`
    return _columns(queue, state).where(text(WAITING_ROWS), Job.priority == priority.value).order_by(Job.created_at)


def unfinalised_jobs() -> Select[Any]:
    """Return the same query for jobs whose chunks are finished or whose plan is open."""
    queue = case((Job.chunks_total.is_not(None), QueueName.FINALISE.value), else_=QueueName.JOBS.value)
    state = case((Job.holder.is_not(None), RUNNING), (Job.put_off_at.is_not(None), PUT_OFF), else_=WAITING)
    return _columns(queue, state).where(text(UNFINALISED_ROWS), Job.deleted_at.is_(None)).order_by(Job.due_at)


def chunk_rows() -> Select[Any]:
    """Return the same query for the SAMPLED chunks that are due first."""
    columns = (Chunk.job_id, Chunk.status, Chunk.holder)
    due = select(*columns).where(Chunk.due_at.is_not(None)).order_by(Chunk.due_at).limit(SAMPLED).subquery()
    state = case((due.c.holder.is_not(None), RUNNING), else_=WAITING)
    running = (due.c.status.in_(OPEN), Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None))
    statement = _columns(literal(QueueName.CHUNKS.value), state)
    return statement.join_from(due, Job, Job.job_id == due.c.job_id).where(*running)


def _columns(queue: ColumnElement[str], state: ColumnElement[str]) -> Select[Any]:
    since = func.coalesce(Job.progressed_at, Job.created_at, type_=UtcDateTime())
    columns: tuple[Any, ...] = (queue.label("queue"), Job.priority, state.label("state"), since.label("since"))
    return select(*columns)


async def count_open_jobs(session: AsyncSession) -> list[OpenJobs]:
    """Return the number of PENDING and PROCESSING jobs, with what is left of them, zeros included."""
    counts = await job_statistics.count_by_status(session, OPEN)
    share = 1.0 - Job.chunks_completed * 1.0 / func.nullif(Job.chunks_total, 0)
    columns: tuple[Any, ...] = (
        (Job.chunks_total - Job.chunks_completed).label("chunks"),
        (Job.audio_duration_seconds * func.coalesce(share, 1.0)).label("audio"),
    )
    found = []
    for status in OPEN:
        jobs = select(*columns).where(Job.status == status, Job.deleted_at.is_(None)).order_by(Job.created_at)
        left = jobs.limit(SAMPLED).subquery().c
        statement = select(func.count(), func.sum(left.chunks), func.sum(left.audio)).select_from(left.chunks.table)
        sampled, chunks, audio = (await session.execute(statement)).one()
        count = max(counts[status.value], sampled) if sampled == SAMPLED else sampled
        factor = count / max(sampled, 1)
        found.append(OpenJobs(status.value, count, round((chunks or 0) * factor), float(audio or 0.0) * factor))
    return found


async def count_waiting_webhooks(session: AsyncSession) -> int:
    """Return the number of webhooks that are to be delivered, those under way included."""
    due = select(WebhookDelivery.webhook_id).where(WebhookDelivery.due_at.is_not(None)).order_by(WebhookDelivery.due_at)
    statement = select(func.count()).select_from(due.limit(SAMPLED).subquery())
    sampled = int((await session.execute(statement)).scalar_one())
    if sampled < SAMPLED:
        return sampled
    return max(sampled, await estimated_rows(session, "webhook_deliveries WHERE due_at IS NOT NULL"))
