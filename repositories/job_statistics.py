"""Statistics of all jobs: counts, measured speeds and the backlog. None costs more as the tables grow."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.estimates import estimated_rows
from repositories.models import Job, Metric

COUNTED = 2000
"""Number of jobs up to which they are counted in PostgreSQL; more are estimated by its planner."""
RECENT = 500
"""Number of newest jobs, or values of a metric, among which measurements are searched."""
BACKLOG = 1000
"""Number of oldest running jobs whose remaining audio is summed."""
MAX_VALUES = 2000
"""Number of newest values of a metric in a period that are read."""


async def count_by_status(session: AsyncSession, statuses: Sequence[JobStatus] = tuple(JobStatus)) -> dict[str, int]:
    """Return the number of jobs of each status, zeros included.

    PostgreSQL counts up to COUNTED jobs, and up to COUNTED unfinished ones of a status; more are an estimate.
    """
    postgresql = session.get_bind().dialect.name == "postgresql"
    if postgresql and await estimated_rows(session, "jobs") > COUNTED:
        return {status.value: await _count(session, status) for status in statuses}
    statement = select(Job.status, func.count()).where(Job.deleted_at.is_(None)).group_by(Job.status)
    counts: dict[str, int] = {row[0]: row[1] for row in (await session.execute(statement)).all()}
    return {status.value: counts.get(status.value, 0) for status in statuses}


async def _count(session: AsyncSession, status: JobStatus) -> int:
    estimate = await estimated_rows(session, f"jobs WHERE status = '{status.value}' AND deleted_at IS NULL")
    if status not in OPEN:
        return estimate
    # in the order of an index that has only unfinished jobs
    jobs = select(Job.job_id).where(Job.status == status, Job.deleted_at.is_(None)).order_by(Job.created_at)
    statement = select(func.count()).select_from(jobs.limit(COUNTED + 1).subquery())
    counted: int = (await session.execute(statement)).scalar_one()
    return counted if counted <= COUNTED else max(counted, estimate)


async def average_retries(session: AsyncSession) -> float:
    """Return the mean number of retries of the newest RECENT jobs with known duration."""
    recent = _measured(select(Job.retry_count)).subquery()
    return float((await session.execute(select(func.avg(recent.c.retry_count)))).scalar_one() or 0.0)


async def recent_mean(session: AsyncSession, metric: str, model: str | None = None, last: int = 50) -> float | None:
    """Return the mean of a metric's `last` newest values, only of jobs with `model` if given; None without values.

    The values of a model are searched among the newest RECENT ones.
    """
    newest = select(Metric).where(Metric.metric_name == metric).order_by(Metric.recorded_at.desc())
    recent = newest.limit(last if model is None else RECENT).subquery()
    values = select(recent.c.metric_value).order_by(recent.c.recorded_at.desc()).limit(last)
    if model is not None:
        values = values.join(Job, Job.job_id == recent.c.job_id).where(Job.model == model)
    mean = (await session.execute(select(func.avg(values.subquery().c.metric_value)))).scalar_one()
    return None if mean is None else float(mean)


async def list_values(session: AsyncSession, metric: str, seconds: float) -> list[tuple[datetime, float]]:
    """Return times and values of a metric in the last `seconds`, newest first, at most MAX_VALUES."""
    statement = (
        select(Metric.recorded_at, Metric.metric_value)
        .where(Metric.metric_name == metric, Metric.recorded_at > after(-seconds))
        .order_by(Metric.recorded_at.desc())
        .limit(MAX_VALUES)
    )
    return [(row[0], row[1]) for row in (await session.execute(statement)).all()]


async def seconds_per_megabyte(session: AsyncSession, extension: str, last: int = 20) -> float | None:
    """Return the mean seconds of audio per MiB of recent files with this extension; None without any.

    They are searched among the newest RECENT jobs with known duration.
    """
    columns = select(Job.audio_duration_seconds, Job.file_size_mb, Job.original_filename, Job.created_at)
    recent = _measured(columns).subquery()
    ratio = recent.c.audio_duration_seconds / recent.c.file_size_mb
    ratios = (
        select(ratio.label("ratio"))
        .where(
            recent.c.file_size_mb > 0,
            func.lower(recent.c.original_filename).endswith(f".{extension}", autoescape=True),
        )
        .order_by(recent.c.created_at.desc())
        .limit(last)
        .subquery()
    )
    mean = (await session.execute(select(func.avg(ratios.c.ratio)))).scalar_one()
    return None if mean is None else float(mean)


def _measured(columns: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Return the query for the newest jobs with known duration."""
    return columns.where(Job.audio_duration_seconds > 0).order_by(Job.created_at.desc()).limit(RECENT)


@dataclass(frozen=True, slots=True)
class Backlog:
    """Audio left to transcribe in running jobs, oldest first.

    created: their submits; seconds: sum of the audio left up to and including each; newest: the last submit of a
    running job, which is later than the last in `created` if there are more than BACKLOG.
    """

    created: tuple[datetime, ...] = ()
    seconds: tuple[float, ...] = ()
    newest: datetime | None = None

    def before(self, created_at: datetime) -> float:
        """Return the seconds of audio left in jobs that were submitted before `created_at`.

        Beyond the jobs that were summed, as much audio per time between submits is assumed as among them.
        """
        position = bisect_left(self.created, created_at)
        if not position:
            return 0.0
        known = self.seconds[position - 1]
        first, last = self.created[0], self.created[-1]
        if position < len(self.created) or self.newest is None or last <= first:
            return known
        beyond = max(min(created_at, self.newest), last) - last
        return known + self.seconds[-1] * (beyond / (last - first))


async def backlog(session: AsyncSession) -> Backlog:
    """Return the audio that is left in unfinished jobs of known duration."""
    share = 1.0 - Job.chunks_completed * 1.0 / func.nullif(func.coalesce(Job.chunks_total, Job.chunks_expected), 0)
    left = func.coalesce(Job.audio_duration_seconds, 0.0) * func.coalesce(share, 1.0)
    running = (Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None))
    oldest = select(Job.created_at, left).where(*running).order_by(Job.created_at).limit(BACKLOG)
    rows = (await session.execute(oldest)).all()
    newest = None
    if len(rows) == BACKLOG:
        statement = select(Job.created_at).where(*running).order_by(Job.created_at.desc()).limit(1)
        newest = (await session.execute(statement)).scalar_one_or_none()
    return Backlog(tuple(row[0] for row in rows), tuple(accumulate(row[1] for row in rows)), newest)
