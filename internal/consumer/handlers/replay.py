"""Replay: a dead letter that somebody moved back reopens its job for what is missing, once."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from core.messaging.port import Ack, Delivery, Verdict
from internal.consumer.context import Context
from repositories import failures

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ReplayHandler:
    context: Context

    async def __call__(self, delivery: Delivery) -> Verdict:
        job_id, token = delivery.message.job_id, delivery.message.token or ""
        wake_ups = await self.context.transaction(lambda session, _: failures.replay(session, job_id, token))
        if wake_ups is None:
            log.info("stale dead letter dropped", action="replay_stale")
            return Ack()
        log.info("job reopened from its dead letter", action="replayed", rows=len(wake_ups))
        await self.context.parts.publisher.publish_rows(wake_ups)
        return Ack()
