"""Replay: a dead letter moved back to a work queue reopens its job once, to run the missing steps."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from core.messaging.port import Ack, Delivery, Verdict
from internal.consumer.retrying_database import RetryingDatabase
from internal.services.publishing import Publisher
from repositories import failures

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReplayHandler:
    """Handler of dead letters."""

    database: RetryingDatabase
    publisher: Publisher

    async def __call__(self, delivery: Delivery) -> Verdict:
        job_id, token = delivery.message.job_id, delivery.message.token or ""
        wake_ups = await self.database.write(lambda session: failures.replay(session, job_id, token))
        if wake_ups is None:
            log.info("stale dead letter dropped", action="replay_stale")
            return Ack()
        log.info("job reopened from its dead letter", action="replayed", rows=len(wake_ups))
        await self.publisher.publish_rows(wake_ups)
        return Ack()
