"""Statistics of queues, jobs and workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Gauge

from core.database import Database
from core.errors import DatabaseUnavailable
from core.messaging.port import Broker, QueueStats
from repositories import job_statistics, parking, workers
from repositories.models import Worker

log = structlog.get_logger(__name__)
PARKED = Gauge("stt_parked_items", "Items of housekeeping that keep failing and are left alone for a while", ["step"])
PARKED_TIMEOUT = 3.0
"""Seconds that counting the parked items may take."""


@dataclass(frozen=True, slots=True)
class Report:
    """Statistics for operators.

    Rates are 0 to 1, of completed and failed jobs. Times are means in seconds, None before the first measurement.
    """

    queues: Sequence[QueueStats]
    jobs_by_status: dict[str, int]
    avg_retry_count: float
    chunk_processing_time: float | None
    total_processing_time: float | None
    workers: Sequence[Worker]

    @property
    def job_success_rate(self) -> float:
        return self._share("COMPLETED")

    @property
    def job_failure_rate(self) -> float:
        return self._share("FAILED")

    def _share(self, status: str) -> float:
        ended = self.jobs_by_status["COMPLETED"] + self.jobs_by_status["FAILED"]
        return self.jobs_by_status[status] / ended if ended else 0.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Source of the statistics and gauges."""

    database: Database
    broker: Broker

    async def report(self) -> Report:
        """Return current statistics. Raises BrokerUnavailable, DatabaseUnavailable."""
        queues = await self.broker.stats()
        async with self.database.read() as session:
            return Report(
                queues=queues,
                jobs_by_status=await job_statistics.count_by_status(session),
                avg_retry_count=await job_statistics.average_retries(session),
                chunk_processing_time=await job_statistics.recent_mean(session, "chunk_seconds"),
                total_processing_time=await job_statistics.recent_mean(session, "total_seconds"),
                workers=await workers.list_live(session),
            )

    async def update_gauges(self) -> None:
        """Set the gauge of parked items. It keeps its last value during an outage of the database."""
        try:
            async with self.database.read() as session, asyncio.timeout(PARKED_TIMEOUT):
                counts = await parking.count_by_step(session)
        except DatabaseUnavailable as error:
            log.warning("cannot count parked items", action="parked_unknown", reason=str(error.__cause__)[:300])
            return
        PARKED.clear()
        for step, count in counts.items():
            PARKED.labels(step).set(count)
