"""Webhooks, delivered from the database: Standard Webhooks, signed, at least once (HTTP contract, section 5)."""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime

import structlog
from standardwebhooks.webhooks import Webhook

from core.outbound import Limits, Refused, Unreachable
from internal.bootstrap import Parts
from repositories import webhooks
from repositories.webhooks import Delivery

log = structlog.get_logger(__name__)
ROUND = 1.0
LIMITS = Limits(total=15.0, read=15.0)
GONE = 410


async def deliver_due(parts: Parts) -> None:
    """Send what is due, a batch at a time, until nothing is."""
    while True:
        async with parts.database.write() as session:
            batch = await webhooks.take_due(session)
        await asyncio.gather(*(deliver(parts, delivery) for delivery in batch))
        if not batch:
            return


async def deliver(parts: Parts, delivery: Delivery) -> None:
    """One attempt, and what becomes of it."""
    body = json.dumps(delivery.payload, ensure_ascii=False, separators=(",", ":")).encode()
    reason = ""
    try:
        status = await parts.webhooks.post(delivery.url, body, headers(parts, delivery, body), LIMITS)
        reason = f"the receiver answered {status}"
    except Refused as error:
        await _give_up(parts, delivery, str(error))
        return
    except Unreachable as error:
        status, reason = 0, str(error)
    if 200 <= status < 300:
        async with parts.database.write() as session:
            await webhooks.delivered(session, delivery)
        log.info("webhook delivered", action="webhook_delivered", job_id=delivery.job_id, status=status)
    elif status == GONE or delivery.failures >= len(webhooks.RETRIES):
        await _give_up(parts, delivery, reason)
    else:
        await _try_again(parts, delivery, reason)


def headers(parts: Parts, delivery: Delivery, body: bytes) -> dict[str, str]:
    """webhook-id is the same across retries; the time, and so the signature, is each attempt's own."""
    now = datetime.now(UTC)
    signer = Webhook(parts.secret.webhook_secret(delivery.owner))
    return {
        "Content-Type": "application/json",
        "webhook-id": delivery.webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signer.sign(delivery.webhook_id, now, body.decode()),
    }


async def _try_again(parts: Parts, delivery: Delivery, reason: str) -> None:
    delay = webhooks.RETRIES[delivery.failures] * random.uniform(1.0, 1.2)
    async with parts.database.write() as session:
        await webhooks.again(session, delivery, delay, reason)
    log.warning("webhook not taken", action="webhook_retry", job_id=delivery.job_id, reason=reason, delay=round(delay))


async def _give_up(parts: Parts, delivery: Delivery, reason: str) -> None:
    async with parts.database.write() as session:
        await webhooks.given_up(session, delivery, reason)
    log.error("webhook given up", action="webhook_given_up", job_id=delivery.job_id, reason=reason)
