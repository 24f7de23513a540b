"""The periodic steps of the scheduler. Several schedulers may run the same step at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.domain.job import TOP_LEVEL
from core.errors import InfrastructureError
from core.messaging.port import WORK_QUEUES, Broker, QueueName
from core.scheduler_metrics import HOUSEKEEPING, HOUSEKEEPING_SUCCESS, LOST_RUNS
from internal.scheduler.lease_guard import LeaseGuard, boot_clock
from internal.services.dead_letters import DeadLetters
from internal.services.publishing import Publisher
from internal.services.retention import Retention
from repositories import admission, claims, idempotency, leases, parking, rate_limits, schedule, starvation, workers
from repositories.claims import WakeUp

log = structlog.get_logger(__name__)
PUBLISH_INTERVAL = 5.0
LEASE_INTERVAL = 2.0
BOOST_INTERVAL = 10.0
QUEUE_INTERVAL = 10.0
HOUSEKEEPING_INTERVAL = 60.0
MAX_BATCHES = 5
"""Batches published in one round, so that a backlog after a long outage is published at a steady rate."""


@dataclass(slots=True)
class Maintenance:
    """Recovery of lost work, and housekeeping.

    lease_seconds: length of a lease; starvation_seconds: time without progress after which a job is boosted.
    """

    database: Database
    broker: Broker
    publisher: Publisher
    dead_letters: DeadLetters
    retention: Retention
    lease_seconds: float
    starvation_seconds: float
    guard: LeaseGuard = field(init=False)
    _seen_empty: dict[str, bool] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        # leases are renewed after a third of their time, so a gap of up to a third costs no holder its lease
        self.guard = LeaseGuard(self.lease_seconds, max(self.lease_seconds / 3, 3 * LEASE_INTERVAL))

    async def publish_due(self) -> None:
        """Publish rows whose `due_at` has passed: lost wake-ups, lost runs, retries and dead letters.

        Raises BrokerUnavailable, before any row is changed, if the broker accepts no messages.
        """
        for _ in range(MAX_BATCHES):
            await self.broker.ping()
            async with self.database.write() as session:
                jobs = await schedule.reserve_due_jobs(session)
                chunks = await schedule.reserve_due_chunks(session)
            if jobs or chunks:
                log.info("publishing due rows", action="due_published", jobs=len(jobs), chunks=len(chunks))
            rows = [*(job.wake_up for job in jobs if job.token is None), *chunks]
            all_published = await self.publisher.publish_rows(rows)
            for job in jobs:
                if job.token is not None:
                    await self.dead_letters.publish(job.wake_up.job_id)
            if not all_published or max(len(jobs), len(chunks)) < schedule.BATCH:
                return

    async def release_lapsed(self) -> None:
        """Release rows whose lease has lapsed; `publish_due` publishes them."""
        async with self.database.write() as session:
            now = await leases.current_time(session)
            if not self.guard.allows_release(boot_clock(), now.timestamp()):
                return
            # as of the time that the guard has checked, because the machine may be suspended between the two calls
            count = await leases.release_lapsed(session, now)
        if count:
            LOST_RUNS.inc(count)
            log.warning("runs were lost with their consumer, they run again", action="leases_lapsed", rows=count)

    async def republish_purged_queues(self) -> None:
        """Republish rows that were never claimed if their queue was empty in two consecutive rounds."""
        empty = {stats.name: stats.ready == 0 for stats in await self.broker.stats()}
        purged = [name for name in WORK_QUEUES if empty.get(name) and self._seen_empty.get(name)]
        self._seen_empty = empty
        if not purged:
            return
        rows = 0
        while True:
            async with self.database.write() as session:
                count = await schedule.republish_unclaimed(
                    session,
                    jobs=QueueName.JOBS in purged,
                    fetches=QueueName.FETCH in purged,
                    finalises=QueueName.FINALISE in purged,
                    chunks=QueueName.CHUNKS in purged,
                )
            rows += count
            if count < schedule.REPUBLISHED:
                break
        if rows:
            log.warning("queue was purged, publishing again", action="purge_noticed", rows=rows)

    async def boost_starving(self) -> None:
        """Publish one waiting row of each starving job at the top level, within the budget of boosts.

        Raises BrokerUnavailable, before any of the budget is spent, if the broker accepts no messages.
        """
        await self.broker.ping()
        async with self.database.write() as session:
            rows = await starvation.boost_starving(session, self.starvation_seconds)
        if rows:
            log.info("boosting starving jobs", action="boosted", jobs=len(rows))
            await self.publisher.publish_rows(rows, TOP_LEVEL)

    async def admit_put_off(self) -> None:
        """Publish the next row of each owner whose rows were put off: failed and cancelled jobs make room, too."""
        async with self.database.write() as session:
            rows: list[WakeUp] = []
            for owner in await admission.list_waiting_owners(session):
                rows += await admission.admit_next(session, owner, claims.unfetched(), 1)
                rows += await admission.admit_next(session, owner, claims.unprepared(), 1)
        await self.publisher.publish_rows(rows)

    async def housekeep(self) -> None:
        """Run every step of housekeeping. A failed step is logged and does not stop the others."""
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "collect abandoned objects": self.retention.collect_abandoned_objects,
            "expire jobs": self.retention.expire_jobs,
            "purge deleted jobs": self.retention.purge_deleted_jobs,
            "delete old metrics": self.retention.delete_old_metrics,
            "clear ended rows": lambda: self._write(schedule.clear_ended),
            "delete stale workers": lambda: self._write(workers.delete_stale),
            "delete expired idempotency keys": lambda: self._write(idempotency.delete_expired),
            "delete expired rate limits": lambda: self._write(rate_limits.delete_expired),
            "delete stale parked items": lambda: self._write(parking.delete_stale),
        }
        for name, step in steps.items():
            outcome = "failed"
            try:
                await step()
                outcome = "ok"
                HOUSEKEEPING_SUCCESS.labels(name).set_to_current_time()
            except InfrastructureError as error:
                outcome = "skipped"
                log.warning("step skipped, a dependency is down", action="step_skipped", step=name, code=error.code)
            except Exception:
                log.exception("housekeeping step failed", action="step_failed", step=name)
            HOUSEKEEPING.labels(name, outcome).inc()

    async def _write(self, work: Callable[[AsyncSession], Awaitable[object]]) -> None:
        async with self.database.write() as session:
            await work(session)
