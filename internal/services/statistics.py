"""Statistics of queues, jobs and workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import fmean

from core.database import Database
from core.domain.job import Priority
from core.messaging.port import Broker, QueueStats
from repositories import failures, job_statistics, leases, queue_statistics, workers
from repositories.models import Worker
from repositories.queue_statistics import WAITING, QueueRows

FIGURES, FIGURE_SECONDS = 12, 300
"""The last hour in stretches of five minutes."""


@dataclass(frozen=True, slots=True)
class PriorityReport:
    """Rows of one queue's step whose jobs have this priority.

    waiting: for a consumer; running: on one; put_off: until their owner has less work in progress; oldest_seconds: time
    since the last progress of the job that has waited longest, 0 if none waits.
    """

    priority: str
    waiting: int = 0
    running: int = 0
    put_off: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class QueueReport:
    """A queue: messages and subscriptions from the broker, rows from the database.

    unacked: rows that run. The broker's own count of unacknowledged messages is known for this process only.
    """

    name: str
    ready: int
    unacked: int
    consumers: int
    priorities: Sequence[PriorityReport]


@dataclass(frozen=True, slots=True)
class Report:
    """Statistics for operators.

    Rates are 0 to 1, of completed and failed jobs. Times are means in seconds, None before the first measurement.
    """

    queues: Sequence[QueueReport]
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


@dataclass(slots=True)
class Figures:
    """Jobs that ended in FIGURE_SECONDS from `start`. Means are of completed ones, None without any.

    values: recorded values by metric.
    """

    start: datetime
    values: dict[str, list[float]] = field(default_factory=dict)

    @property
    def completed(self) -> int:
        return len(self.values.get("total_seconds", ()))

    @property
    def failed(self) -> int:
        return len(self.values.get(failures.METRIC, ()))

    @property
    def mean_seconds(self) -> float | None:
        return self._mean("total_seconds")

    @property
    def real_time_factor(self) -> float | None:
        return self._mean("real_time_factor")

    def _mean(self, metric: str) -> float | None:
        values = self.values.get(metric)
        return round(fmean(values), 4) if values else None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Source of the statistics."""

    database: Database
    broker: Broker

    async def figures(self) -> list[Figures]:
        """Return the figures of the last hour, oldest first; the last stretch is not over yet."""
        async with self.database.read() as session:
            now = await leases.current_time(session)
            values = {
                name: await job_statistics.list_values(session, name, FIGURES * FIGURE_SECONDS)
                for name in ("total_seconds", "real_time_factor", failures.METRIC)
            }
        start = now - timedelta(seconds=FIGURES * FIGURE_SECONDS)
        figures = [Figures(start + timedelta(seconds=number * FIGURE_SECONDS)) for number in range(FIGURES)]
        for name, known in values.items():
            for at, value in known:
                index = int((at - start).total_seconds() // FIGURE_SECONDS)
                figures[min(max(index, 0), FIGURES - 1)].values.setdefault(name, []).append(value)
        return figures

    async def report(self) -> Report:
        """Return current statistics. Raises BrokerUnavailable, DatabaseUnavailable."""
        queues = await self.broker.stats()
        async with self.database.read() as session:
            rows = await queue_statistics.count_queue_rows(session)
            now = await leases.current_time(session)
            return Report(
                queues=[_queue_report(stats, rows, now) for stats in queues],
                jobs_by_status=await job_statistics.count_by_status(session),
                avg_retry_count=await job_statistics.average_retries(session),
                chunk_processing_time=await job_statistics.recent_mean(session, "chunk_seconds"),
                total_processing_time=await job_statistics.recent_mean(session, "total_seconds"),
                workers=await workers.list_live(session),
            )


def _queue_report(stats: QueueStats, rows: Sequence[QueueRows], now: datetime) -> QueueReport:
    own = [row for row in rows if row.queue.value == stats.name]
    priorities = [_priority_report(priority, own, now) for priority in Priority]
    unacked = sum(report.running for report in priorities)
    return QueueReport(stats.name, stats.ready, unacked, stats.consumers, priorities)


def _priority_report(priority: Priority, rows: Sequence[QueueRows], now: datetime) -> PriorityReport:
    found = {row.state: row for row in rows if row.priority == priority}
    counts = {state: row.count for state, row in found.items()}
    age = (now - found[WAITING].oldest).total_seconds() if WAITING in found else 0.0
    return PriorityReport(priority.value, **counts, oldest_seconds=round(max(age, 0.0), 1))
