"""How long a job will take: audio seconds x the model's measured real-time factor / live slots, plus what waits before.

Nothing is guessed: None until there is a first measurement. Polling clients ask often, so shared figures are kept 5 s.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import PurePosixPath
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.domain.job import JobStatus
from core.errors import InfrastructureError
from repositories import statistics, workers
from repositories.models import Job

log = structlog.get_logger(__name__)
KEEP_SECONDS = 5.0
MAX_KEPT = 256
"""Figures kept at most: their keys hold model names and file endings, which clients choose."""
LONGEST = 2.0
"""Seconds an estimate may take: an answer never waits longer for a figure that may be null."""


class Estimator:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[object, tuple[float, Any]] = OrderedDict()

    async def seconds(self, job: Job) -> float | None:
        """Seconds until the job is done; 0 once it has ended; None where that cannot be told, errors included.

        An estimate decorates answers that stand without it, many of them after a COMMIT, so it never fails them.
        """
        if JobStatus(job.status).terminal:
            return 0.0
        try:
            async with asyncio.timeout(LONGEST):
                return await self._measured(job)
        except (InfrastructureError, TimeoutError) as error:
            log.warning("no estimate", action="estimate_failed", job_id=job.job_id, reason=repr(error))
        except Exception:
            log.exception("no estimate", action="estimate_failed", job_id=job.job_id)
        return None

    async def _measured(self, job: Job) -> float | None:
        factor = await self._factor(job.model)
        length = await self._length(job)
        if factor is None or length is None:
            return None
        done = job.chunks_completed / job.chunks_total if job.chunks_total else 0.0
        before = 0.0 if job.chunks_completed else await self._before(job)
        slots: int = await self._recall("slots", _slots)
        return round((length * (1 - done) + before) * factor / max(slots, 1), 1)

    async def _factor(self, model: str | None) -> float | None:
        found: float | None = await self._recall(
            ("factor", model), lambda session: statistics.recent_mean(session, "real_time_factor", model)
        )
        return found

    async def _length(self, job: Job) -> float | None:
        """Audio seconds: known after Prepare, before that measured on recent files of the same ending."""
        if job.audio_duration_seconds is not None:
            return job.audio_duration_seconds
        ending = PurePosixPath(job.original_filename or "").suffix.lstrip(".").lower()
        ratio = await self._recall(("ratio", ending), lambda session: statistics.seconds_per_megabyte(session, ending))
        return None if ratio is None else float(ratio * (job.file_size_mb or 0.0))

    async def _before(self, job: Job) -> float:
        async with self._database.read() as session:
            return await statistics.backlog_seconds(session, job.created_at)

    async def _recall(self, key: object, ask: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        kept = self._kept.get(key)
        if kept and kept[0] > time.monotonic():
            return kept[1]
        async with self._database.read() as session:
            value = await ask(session)
        self._kept[key] = (time.monotonic() + KEEP_SECONDS, value)
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return value


async def _slots(session: AsyncSession) -> int:
    return sum(worker.slots for worker in workers.healthy(await workers.list_live(session)))
