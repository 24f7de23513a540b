"""The scheduler process: the periodic steps of maintenance, and webhook delivery."""

from __future__ import annotations

import asyncio
import math

import structlog

from core.messaging.port import Broker
from internal.outage_retry import OutageRetry
from internal.periodic_tasks import PeriodicTasks
from internal.scheduler.lost_consumers import CHECK_INTERVAL, LostConsumers
from internal.scheduler.maintenance import (
    BOOST_INTERVAL,
    HOUSEKEEPING_INTERVAL,
    LEASE_INTERVAL,
    PUBLISH_INTERVAL,
    QUEUE_INTERVAL,
    Maintenance,
)
from internal.scheduler.sampler import SAMPLE_INTERVAL, Sampler
from internal.scheduler.webhooks import WebhookDeliverer

log = structlog.get_logger(__name__)


class Scheduler:
    """The scheduler; any number may run at once. `start` and `stop` are idempotent."""

    def __init__(self, broker: Broker, maintenance: Maintenance, webhooks: WebhookDeliverer, sampler: Sampler) -> None:
        self.maintenance, self._sampler = maintenance, sampler
        self._lost_consumers = LostConsumers(maintenance.database)
        self._broker, self._webhooks = broker, webhooks
        self._periodic_tasks = PeriodicTasks()

    async def start(self) -> None:
        # does not wait for storage: only housekeeping needs it, and repeats in its next round
        self._periodic_tasks.start(SAMPLE_INTERVAL, self._sampler.sample, "sample figures")
        await OutageRetry(math.inf).run(self._broker.start)
        maintenance, start = self.maintenance, self._periodic_tasks.start
        start(PUBLISH_INTERVAL, maintenance.publish_due, "publish due rows")
        start(LEASE_INTERVAL, maintenance.release_lapsed, "release lapsed leases")
        start(BOOST_INTERVAL, maintenance.boost_starving, "boost starving jobs")
        start(PUBLISH_INTERVAL, maintenance.admit_put_off, "admit rows that were put off")
        start(CHECK_INTERVAL, self._lost_consumers.check, "find lost consumers")
        start(QUEUE_INTERVAL, maintenance.republish_purged_queues, "republish purged queues")
        start(0, self._webhooks.run_round, "deliver webhooks")
        start(HOUSEKEEPING_INTERVAL, maintenance.housekeep, "housekeeping")
        log.info("scheduler is ready", action="scheduler_started")

    async def failed(self) -> Exception:
        """Never return: a step that fails is repeated in its next round."""
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        await self._periodic_tasks.stop()
        await self._webhooks.stop()
