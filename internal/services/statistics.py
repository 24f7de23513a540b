"""Statistics of queues, jobs and workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.database import Database
from core.messaging.port import Broker, QueueStats
from repositories import job_statistics, workers
from repositories.models import Worker


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
    """Source of the statistics."""

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
