"""Statistics of all jobs: counts, measured speeds and the backlog."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import and_, func, null, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.models import Job, Metric

MAX_ENDINGS = 10_000
"""Rows of each kind that the figures of the last hour are made of."""


async def count_by_status(session: AsyncSession) -> dict[str, int]:
    """Return the number of jobs of each status, zeros included."""
    statement = select(Job.status, func.count()).where(Job.deleted_at.is_(None)).group_by(Job.status)
    counts: dict[str, int] = {row[0]: row[1] for row in (await session.execute(statement)).all()}
    return {status.value: counts.get(status.value, 0) for status in JobStatus}


async def average_retries(session: AsyncSession) -> float:
    """Return the mean number of retries per job."""
    value = (await session.execute(select(func.avg(Job.retry_count)).where(Job.deleted_at.is_(None)))).scalar_one()
    return float(value or 0.0)


async def recent_mean(session: AsyncSession, metric: str, model: str | None = None, last: int = 50) -> float | None:
    """Return the mean of a metric's `last` newest values, only of jobs with `model` if given; None without values."""
    recent = select(Metric.metric_value).where(Metric.metric_name == metric)
    if model is not None:
        recent = recent.join(Job, Job.job_id == Metric.job_id).where(Job.model == model)
    values = recent.order_by(Metric.recorded_at.desc()).limit(last).subquery()
    mean = (await session.execute(select(func.avg(values.c.metric_value)))).scalar_one()
    return None if mean is None else float(mean)


async def list_endings(session: AsyncSession, seconds: float) -> list[tuple[datetime, float | None, float | None]]:
    """Return the jobs that ended without being cancelled in the last `seconds`: time, duration, real-time factor.

    A failed job has neither duration nor factor. At most MAX_ENDINGS, the newest of each kind.
    """
    duration, factor = aliased(Metric), aliased(Metric)
    completed = (
        select(duration.recorded_at, duration.metric_value, factor.metric_value)
        .join(factor, and_(factor.job_id == duration.job_id, factor.metric_name == "real_time_factor"))
        .where(duration.metric_name == "total_seconds", duration.recorded_at > after(-seconds))
        .order_by(duration.recorded_at.desc())
        .limit(MAX_ENDINGS)
    )
    failed = (
        select(Job.completed_at, null(), null())
        .where(Job.status == JobStatus.FAILED, Job.completed_at > after(-seconds), Job.deleted_at.is_(None))
        .order_by(Job.completed_at.desc())
        .limit(MAX_ENDINGS)
    )
    rows = [*(await session.execute(completed)).all(), *(await session.execute(failed)).all()]
    return [(row[0], row[1], row[2]) for row in rows if row[0] is not None]


async def seconds_per_megabyte(session: AsyncSession, extension: str, last: int = 20) -> float | None:
    """Return the mean seconds of audio per MiB of recent files with this extension; None without any."""
    ratio = Job.audio_duration_seconds / Job.file_size_mb
    recent = (
        select(ratio.label("ratio"))
        .where(
            Job.file_size_mb > 0,
            Job.audio_duration_seconds > 0,
            func.lower(Job.original_filename).endswith(f".{extension}", autoescape=True),
        )
        .order_by(Job.created_at.desc())
        .limit(last)
        .subquery()
    )
    mean = (await session.execute(select(func.avg(recent.c.ratio)))).scalar_one()
    return None if mean is None else float(mean)


async def backlog_seconds(session: AsyncSession, created_before: datetime) -> float:
    """Return the seconds of audio left to transcribe in older unfinished jobs of known duration."""
    share = 1.0 - Job.chunks_completed * 1.0 / func.nullif(func.coalesce(Job.chunks_total, Job.chunks_expected), 0)
    left = func.sum(Job.audio_duration_seconds * func.coalesce(share, 1.0))
    statement = select(left).where(Job.status.in_(OPEN), Job.created_at < created_before, Job.deleted_at.is_(None))
    return float((await session.execute(statement)).scalar_one() or 0.0)
