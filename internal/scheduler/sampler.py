"""Samples of figures about the whole service, for the metrics of the scheduler.

They are read from the database and the broker, so that each scheduler exports the same ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.domain.job import Priority
from core.errors import InfrastructureError
from core.messaging.port import WORK_QUEUES, Broker
from core.scheduler_metrics import (
    BACKLOG,
    CHUNKS_LEFT,
    DEPENDENCY_UP,
    JOBS,
    PARKED,
    QUEUE_CONSUMERS,
    QUEUE_MESSAGES,
    QUEUE_OLDEST,
    QUEUE_ROWS,
    SAMPLED,
    WEBHOOKS_WAITING,
    WORKER_SLOTS,
    WORKERS,
)
from core.storage.port import Storage
from repositories import leases, parking, queue_statistics, workers
from repositories.queue_statistics import STATES, WAITING

log = structlog.get_logger(__name__)
SAMPLE_INTERVAL = 15.0
TIMEOUT = 5.0
"""Seconds that a dependency may take for its figures before it counts as down."""


@dataclass(frozen=True, slots=True)
class Sampler:
    """Sampler of the figures. Those of a dependency that is down are withdrawn, since old ones would mislead."""

    database: Database
    broker: Broker
    storage: Storage

    async def sample(self) -> None:
        up = [
            await _succeeds("database", self._sample_database, self._clear_database),
            await _succeeds("broker", self._sample_broker, self._clear_broker),
            await _succeeds("storage", self.storage.ping, lambda: None),
        ]
        if all(up):
            SAMPLED.set_to_current_time()

    async def _sample_database(self) -> None:
        async with self.database.read() as session:
            await _sample_queues(session)
            open_jobs = await queue_statistics.count_open_jobs(session)
            live = await workers.list_live(session)
            parked = await parking.count_by_step(session)
            WEBHOOKS_WAITING.set(await queue_statistics.count_waiting_webhooks(session))
        for jobs in open_jobs:
            JOBS.labels(jobs.status).set(jobs.count)
        CHUNKS_LEFT.set(sum(jobs.chunks_left for jobs in open_jobs))
        BACKLOG.set(sum(jobs.audio_left for jobs in open_jobs))
        healthy = workers.healthy(live)
        WORKERS.labels("healthy").set(len(healthy))
        WORKERS.labels("sick").set(len(live) - len(healthy))
        WORKER_SLOTS.set(sum(worker.slots for worker in healthy))
        PARKED.clear()
        for step, count in parked.items():
            PARKED.labels(step).set(count)

    async def _sample_broker(self) -> None:
        for queue in await self.broker.stats():
            QUEUE_MESSAGES.labels(queue.name).set(queue.ready)
            QUEUE_CONSUMERS.labels(queue.name).set(queue.consumers)

    def _clear_database(self) -> None:
        for gauge in (QUEUE_ROWS, QUEUE_OLDEST, JOBS, WORKERS, PARKED):
            gauge.clear()
        for figure in (CHUNKS_LEFT, BACKLOG, WORKER_SLOTS, WEBHOOKS_WAITING):
            figure.set(float("nan"))

    def _clear_broker(self) -> None:
        QUEUE_MESSAGES.clear()
        QUEUE_CONSUMERS.clear()


async def _sample_queues(session: AsyncSession) -> None:
    now = await leases.current_time(session)
    found = {(row.queue, row.priority, row.state): row for row in await queue_statistics.count_queue_rows(session)}
    for queue in WORK_QUEUES:
        for priority in Priority:
            for state in STATES:
                row = found.get((queue, priority.value, state))
                QUEUE_ROWS.labels(queue.value, priority.value, state).set(row.count if row else 0)
                if state == WAITING:
                    age = (now - row.oldest).total_seconds() if row else 0.0
                    QUEUE_OLDEST.labels(queue.value, priority.value).set(age)


async def _succeeds(dependency: str, sample: Callable[[], Awaitable[None]], clear: Callable[[], None]) -> bool:
    """Take a dependency's sample; return whether that succeeded. Clear its figures otherwise."""
    try:
        async with asyncio.timeout(TIMEOUT):
            await sample()
    except (InfrastructureError, TimeoutError) as error:
        reason = repr(error.__cause__ or error)
        log.warning("figures cannot be sampled", action="sample_failed", dependency=dependency, reason=reason)
        clear()
        DEPENDENCY_UP.labels(dependency).set(0)
        return False
    DEPENDENCY_UP.labels(dependency).set(1)
    return True
