"""The scheduler process."""

from __future__ import annotations

import asyncio

import structlog

from internal.bootstrap import Parts
from internal.patience import Patience
from internal.scheduler.rounds import (
    BOOST_ROUND,
    HOUSEKEEPING_ROUND,
    LEASE_ROUND,
    QUEUE_ROUND,
    ROUND,
    Rounds,
)
from internal.scheduler.webhooks import Sender
from internal.side_tasks import SideTasks

log = structlog.get_logger(__name__)


class Scheduler:
    """`start`, then `stop`; both are harmless when repeated. Every round is safe to run in several processes."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.rounds = Rounds(parts)
        self._webhooks = Sender(parts)
        self._side_tasks = SideTasks()

    async def start(self) -> None:
        # storage is not waited for: it only matters to housekeeping, whose rounds try again by themselves
        await Patience(longest=float("inf")).run(self.parts.broker.start)
        rounds = self.rounds
        self._side_tasks.start(ROUND, rounds.publish_due, "publish due rows")
        self._side_tasks.start(LEASE_ROUND, rounds.release_lapsed, "release lapsed leases")
        self._side_tasks.start(BOOST_ROUND, rounds.boost_starving, "boost starving jobs")
        self._side_tasks.start(ROUND, rounds.wake_put_off, "wake what was put off")
        self._side_tasks.start(QUEUE_ROUND, rounds.notice_purged_queues, "notice purged queues")
        self._side_tasks.start(0, self._webhooks.turn, "deliver webhooks")
        self._side_tasks.start(HOUSEKEEPING_ROUND, rounds.housekeep, "housekeeping")
        log.info("scheduler is ready", action="scheduler_started")

    async def failed(self) -> Exception:
        """Never returns: each round starts anew, whatever ended the one before."""
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        await self._side_tasks.stop()
        await self._webhooks.stop()
