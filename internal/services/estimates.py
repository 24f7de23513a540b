"""Estimates of a job's remaining time: (its audio + the audio queued before it) x real-time factor / live slots.

The real-time factor is measured per model; without a measurement there is no estimate. Shared figures are cached,
because clients poll often.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.domain.job import JobStatus
from core.errors import InfrastructureError
from core.metrics import ESTIMATE_ERROR
from repositories import job_statistics, workers
from repositories.job_statistics import Backlog
from repositories.models import Job

log = structlog.get_logger(__name__)
CACHE_SECONDS = 5.0
MAX_CACHED = 256
"""Maximum number of cached figures: clients choose the model names and file extensions in their keys."""
MAX_REMEMBERED = 10_000
"""Maximum number of jobs whose first estimate is remembered, to compare it with the time of their end."""
TIMEOUT = 2.0
"""Seconds that an estimate may take; after that the response contains null."""


class Estimator:
    """Estimator of remaining times, with a cache. One per API process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: OrderedDict[object, tuple[float, Any]] = OrderedDict()
        self._first: OrderedDict[str, tuple[datetime, float]] = OrderedDict()

    async def seconds(self, job: Job) -> float | None:
        """Return the seconds until the job ends; 0 if it has ended; None if unknown.

        Never raises: an estimate is optional, and many responses with one follow a COMMIT.
        """
        if JobStatus(job.status).terminal:
            self._compare(job)
            return 0.0
        try:
            async with asyncio.timeout(TIMEOUT):
                seconds = await self._estimate(job)
            self._remember(job, seconds)
            return seconds
        except (InfrastructureError, TimeoutError) as error:
            log.warning("cannot estimate time", action="estimate_failed", job_id=job.job_id, reason=repr(error))
        except Exception:
            log.exception("cannot estimate time", action="estimate_failed", job_id=job.job_id)
        return None

    def _remember(self, job: Job, seconds: float | None) -> None:
        if seconds and job.job_id not in self._first:
            self._first[job.job_id] = (datetime.now(UTC), seconds)
            while len(self._first) > MAX_REMEMBERED:
                self._first.popitem(last=False)

    def _compare(self, job: Job) -> None:
        """Record how far off the first estimate of an ended job was, if this process made it."""
        made, seconds = self._first.pop(job.job_id, (None, 0.0))
        if made is not None and job.status == JobStatus.COMPLETED and job.completed_at is not None:
            ESTIMATE_ERROR.observe(max(0.0, (job.completed_at - made).total_seconds()) / seconds)

    async def _estimate(self, job: Job) -> float | None:
        factor: float | None = await self._cached(
            ("factor", job.model), lambda session: job_statistics.recent_mean(session, "real_time_factor", job.model)
        )
        length = await self._length(job)
        if factor is None or length is None:
            return None
        finished = finished_share(job)
        queued_before = 0.0
        if not job.chunks_completed:
            backlog: Backlog = await self._cached("backlog", job_statistics.backlog)
            queued_before = backlog.before(job.created_at)
        slots: int = await self._cached("slots", _live_slots)
        return round((length * (1 - finished) + queued_before) * factor / max(slots, 1), 1)

    async def _length(self, job: Job) -> float | None:
        """Return the seconds of audio; before Prepare, an estimate from recent files with the same extension."""
        if job.audio_duration_seconds is not None:
            return job.audio_duration_seconds
        extension = PurePosixPath(job.original_filename or "").suffix.lstrip(".").lower()
        ratio = await self._cached(
            ("ratio", extension), lambda session: job_statistics.seconds_per_megabyte(session, extension)
        )
        return None if ratio is None else float(ratio * (job.file_size_mb or 0.0))

    async def _cached(self, key: object, query: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        cached = self._cache.get(key)
        if cached and cached[0] > time.monotonic():
            return cached[1]
        async with self._database.read() as session:
            value = await query(session)
        self._cache[key] = (time.monotonic() + CACHE_SECONDS, value)
        self._cache.move_to_end(key)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return value


def finished_share(job: Job) -> float:
    """Return the share of finished chunks, 0 to 1. Until the plan is closed, their number is an estimate."""
    total = job.chunks_expected if job.chunks_total is None else job.chunks_total
    return min(job.chunks_completed / total, 1.0) if total else 0.0


async def _live_slots(session: AsyncSession) -> int:
    return sum(worker.slots for worker in workers.healthy(await workers.list_live(session)))
