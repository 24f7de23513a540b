"""Figures of the queues and of unfinished jobs.

Every query reads an index that has unfinished rows only, so its cost depends on the backlog, not on the tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import UtcDateTime
from core.domain.job import OPEN, JobStatus
from core.messaging.port import QueueName
from repositories.models import Chunk, Job, WebhookDelivery

WAITING, RUNNING, PUT_OFF = "waiting", "running", "put_off"
STATES = (WAITING, RUNNING, PUT_OFF)


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
    rows: list[QueueRows] = []
    for each in (job_rows(), chunk_rows()):
        # grouped around a subquery: PostgreSQL does not recognise two expressions with parameters as the same
        row = each.subquery().c
        group = (row.queue, row.priority, row.state)
        statement = select(*group, func.count(), func.min(row.since)).group_by(*group)
        rows += [QueueRows(QueueName(found[0]), *found[1:]) for found in (await session.execute(statement)).all()]
    return rows


def job_rows() -> Select[Any]:
    """Return the query for the queue, priority, state and last progress of every job in a queue."""
    queue = case(
        (Job.chunks_total.is_not(None), QueueName.FINALISE.value),
        (Job.minio_audio_path.is_(None) & Job.media_url.is_not(None), QueueName.FETCH.value),
        else_=QueueName.JOBS.value,
    )
    state = case((Job.holder.is_not(None), RUNNING), (Job.put_off_at.is_not(None), PUT_OFF), else_=WAITING)
    due = (Job.due_at.is_not(None), Job.status.in_(OPEN), Job.deleted_at.is_(None))
    return _columns(queue, state).where(*due)


def chunk_rows() -> Select[Any]:
    """Return the same query for chunks."""
    state = case((Chunk.holder.is_not(None), RUNNING), else_=WAITING)
    due = (Chunk.due_at.is_not(None), Chunk.status.in_(OPEN))
    running = (Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None))
    statement = _columns(literal(QueueName.CHUNKS.value), state)
    return statement.join_from(Chunk, Job, Job.job_id == Chunk.job_id).where(*due, *running)


def _columns(queue: ColumnElement[str], state: ColumnElement[str]) -> Select[Any]:
    since = func.coalesce(Job.progressed_at, Job.created_at, type_=UtcDateTime())
    columns: tuple[Any, ...] = (queue.label("queue"), Job.priority, state.label("state"), since.label("since"))
    return select(*columns)


async def count_open_jobs(session: AsyncSession) -> list[OpenJobs]:
    """Return the number of PENDING and PROCESSING jobs, with what is left of them, zeros included."""
    chunks = func.coalesce(func.sum(Job.chunks_total - Job.chunks_completed), 0)
    share = 1.0 - Job.chunks_completed * 1.0 / func.nullif(Job.chunks_total, 0)
    audio = func.coalesce(func.sum(Job.audio_duration_seconds * func.coalesce(share, 1.0)), 0.0)
    columns: tuple[Any, ...] = (Job.status, func.count(), chunks, audio)
    statement = select(*columns).where(Job.status.in_(OPEN), Job.deleted_at.is_(None)).group_by(Job.status)
    found = {row[0]: OpenJobs(row[0], row[1], int(row[2]), float(row[3])) for row in await session.execute(statement)}
    return [found.get(status.value, OpenJobs(status.value, 0, 0, 0.0)) for status in OPEN]


async def count_waiting_webhooks(session: AsyncSession) -> int:
    """Return the number of webhooks that are to be delivered, those under way included."""
    statement = select(func.count()).where(WebhookDelivery.due_at.is_not(None))
    return int((await session.execute(statement)).scalar_one())
