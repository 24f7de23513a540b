"""The scheduler process."""

from __future__ import annotations

import asyncio

import structlog

from internal.bootstrap import Application
from internal.outage_retry import OutageRetry
from internal.periodic_tasks import PeriodicTasks
from internal.scheduler.maintenance import (
    BOOST_ROUND,
    HOUSEKEEPING_ROUND,
    LEASE_ROUND,
    QUEUE_ROUND,
    ROUND,
    Maintenance,
)
from internal.scheduler.webhooks import Sender

log = structlog.get_logger(__name__)


class Scheduler:
    """`start`, then `stop`; both are harmless when repeated. Every round is safe to run in several processes."""

    def __init__(self, parts: Application) -> None:
        self.parts = parts
        self.maintenance = Maintenance(parts)
        self._webhooks = Sender(parts)
        self._periodic_tasks = PeriodicTasks()

    async def start(self) -> None:
        # storage is not waited for: it only matters to housekeeping, whose rounds try again by themselves
        await OutageRetry(longest=float("inf")).run(self.parts.broker.start)
        maintenance = self.maintenance
        self._periodic_tasks.start(ROUND, maintenance.publish_due, "publish due rows")
        self._periodic_tasks.start(LEASE_ROUND, maintenance.release_lapsed, "release lapsed leases")
        self._periodic_tasks.start(BOOST_ROUND, maintenance.boost_starving, "boost starving jobs")
        self._periodic_tasks.start(ROUND, maintenance.wake_put_off, "wake what was put off")
        self._periodic_tasks.start(QUEUE_ROUND, maintenance.notice_purged_queues, "notice purged queues")
        self._periodic_tasks.start(0, self._webhooks.turn, "deliver webhooks")
        self._periodic_tasks.start(HOUSEKEEPING_ROUND, maintenance.housekeep, "housekeeping")
        log.info("scheduler is ready", action="scheduler_started")

    async def failed(self) -> Exception:
        """Never returns: each round starts anew, whatever ended the one before."""
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        await self._periodic_tasks.stop()
        await self._webhooks.stop()
