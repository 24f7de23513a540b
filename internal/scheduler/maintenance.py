"""The scheduler's rounds: publish what is due, end leases of the dead, boost, keep house. Any number may run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.domain.job import TOP_LEVEL
from core.errors import InfrastructureError
from core.messaging.port import WORK_QUEUES, QueueName
from internal.bootstrap import Application
from internal.scheduler.guard import LeaseGuard, uptime
from repositories import admission, claims, idempotency, leases, parking, rate_limits, schedule, starvation, workers
from repositories.claims import WakeUp

log = structlog.get_logger(__name__)
ROUND = 5.0
LEASE_ROUND = 2.0
BOOST_ROUND = 10.0
QUEUE_ROUND = 10.0
HOUSEKEEPING_ROUND = 60.0
BATCHES = 5
"""Batches that one round publishes at most: what a long outage made due goes out at a steady rate."""


@dataclass(slots=True)
class Maintenance:
    parts: Application
    guard: LeaseGuard = field(init=False)
    _seen_empty: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lease = self.parts.settings.lease_seconds
        # holders renew every third of a lease: a gap no longer than that costs nobody his lease
        self.guard = LeaseGuard(lease, max(lease / 3, 3 * LEASE_ROUND))

    async def publish_due(self) -> None:
        """Publish rows whose `due_at` has passed: lost wake-ups, lost runs, retries, dead letters.

        Raises BrokerUnavailable before any row is touched where the broker does not take messages.
        """
        for _ in range(BATCHES):
            await self.parts.broker.ping()
            async with self.parts.database.write() as session:
                jobs = await schedule.reserve_due_jobs(session)
                chunks = await schedule.reserve_due_chunks(session)
            if jobs or chunks:
                log.info("publishing what is due", action="due_published", jobs=len(jobs), chunks=len(chunks))
            rows = [*(job.wake_up for job in jobs if job.token is None), *chunks]
            out = await self.parts.publisher.publish_rows(rows)
            for job in jobs:
                if job.token is not None:
                    await self.parts.services.dead_letters.publish(job.wake_up.job_id)
            if not out or max(len(jobs), len(chunks)) < schedule.BATCH:
                return

    async def release_lapsed(self) -> None:
        """Take rows from holders that died; `publish_due` publishes them."""
        async with self.parts.database.write() as session:
            now = await leases.current_time(session)
            if not self.guard.steady(uptime(), now.timestamp()):
                return
            # as of the moment the guard has seen: the machine may sleep between these two lines as well
            count = await leases.release_lapsed(session, now)
        if count:
            log.warning("holders are gone, their rows are due", action="leases_lapsed", rows=count)

    async def notice_purged_queues(self) -> None:
        """A queue seen empty twice in a row has lost what was published and never claimed."""
        empty = {stats.name: stats.ready == 0 for stats in await self.parts.broker.stats()}
        lost = [name for name in WORK_QUEUES if empty.get(name) and self._seen_empty.get(name)]
        self._seen_empty = empty
        if not lost:
            return
        async with self.parts.database.write() as session:
            count = await schedule.republish_unclaimed(
                session,
                jobs=QueueName.JOBS in lost,
                fetches=QueueName.FETCH in lost,
                finalises=QueueName.FINALISE in lost,
                chunks=QueueName.CHUNKS in lost,
            )
        if count:
            log.warning("queue was emptied, publishing again", action="purge_noticed", rows=count)

    async def boost_starving(self) -> None:
        """Publish one waiting item of jobs without progress for STARVATION_SECONDS at the top level, within a budget.

        Raises BrokerUnavailable before any of the budget is spent where the broker does not take messages.
        """
        await self.parts.broker.ping()
        async with self.parts.database.write() as session:
            rows = await starvation.boost_starving(session, self.parts.settings.starvation_seconds)
        if rows:
            log.info("boosting jobs that wait too long", action="boosted", jobs=len(rows))
            await self.parts.publisher.publish_rows(rows, TOP_LEVEL)

    async def wake_put_off(self) -> None:
        """Try the next row of each owner that has rows put off: jobs that fail or are cancelled make room, too."""
        async with self.parts.database.write() as session:
            rows: list[WakeUp] = []
            for owner in await admission.list_waiting_owners(session):
                rows += await admission.admit_next(session, owner, claims.unfetched(), 1)
                rows += await admission.admit_next(session, owner, claims.unprepared(), 1)
        await self.parts.publisher.publish_rows(rows)

    async def collect_intents(self) -> None:
        await self.parts.services.retention.collect_abandoned_objects()

    async def housekeep(self) -> None:
        """Every step of housekeeping; one that fails is logged and does not stop the others."""
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "collect intents": self.collect_intents,
            "expire jobs": self.parts.services.retention.expire_jobs,
            "forget deleted jobs": self.parts.services.retention.purge_deleted_jobs,
            "clear due dates": lambda: self._write(schedule.clear_ended),
            "forget workers": lambda: self._write(workers.delete_stale),
            "forget idempotency keys": lambda: self._write(idempotency.delete_expired),
            "forget rate limits": lambda: self._write(rate_limits.delete_expired),
            "forget parked items": lambda: self._write(parking.delete_stale),
        }
        for name, step in steps.items():
            try:
                await step()
            except InfrastructureError as error:
                log.warning("a part is down, step left out", action="step_skipped", step=name, code=error.code)
            except Exception:
                log.exception("step of housekeeping failed", action="step_failed", step=name)

    async def _write(self, work: Callable[[AsyncSession], Awaitable[object]]) -> None:
        async with self.parts.database.write() as session:
            await work(session)
