"""Webhooks, delivered from the database: Standard Webhooks, signed, at least once (HTTP contract, section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import structlog
from standardwebhooks.webhooks import Webhook

from core.errors import InfrastructureError
from core.outbound import Limits, Refused, Unreachable
from internal.bootstrap import Application
from internal.services.webhook_payload import webhook_body
from repositories import webhooks
from repositories.webhooks import Candidate, WebhookAttempt

log = structlog.get_logger(__name__)
ROUND = 1.0
PLACES = 32
"""Deliveries that one scheduler has under way at once."""
LIMITS = Limits(total=15.0, read=15.0)
GONE = 410


class Sender:
    """Keeps up to `PLACES` deliveries under way; a place that gets free is filled at once."""

    def __init__(self, parts: Application, holder: str | None = None) -> None:
        self._parts = parts
        self._holder = holder or f"scheduler-{uuid.uuid4().hex[:12]}"
        self._running: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._served: dict[str, float] = {}

    async def turn(self) -> None:
        """Wait until a delivery has ended, or a moment, then fill the free places."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROUND):
                await self._ended.wait()
        self._ended.clear()
        await self.fill()

    async def fill(self) -> None:
        """Lease what is due, as far as places are free and the limits of owners and hosts allow, and send it."""
        free = PLACES - len(self._running)
        if free <= 0:
            return
        async with self._parts.database.write() as session:
            busy = await webhooks.list_leased(session)
            owners, hosts = Counter(owner for owner, _ in busy), Counter(host for _, host in busy)
            full_owners = {owner for owner, count in owners.items() if count >= webhooks.PER_OWNER}
            full_hosts = {host for host, count in hosts.items() if count >= webhooks.PER_HOST}
            due = await webhooks.list_due(session, full_owners, full_hosts)
            chosen = shared(due, busy, free, self._served)
            taken = await webhooks.lease(session, chosen, self._holder) if chosen else []
        waiting = {one.owner for one in due}
        self._served = {owner: at for owner, at in self._served.items() if owner in waiting}
        for delivery in taken:
            self._served[delivery.owner] = time.monotonic()
            task = asyncio.create_task(self._send(delivery), name=f"webhook {delivery.webhook_id}")
            self._running.add(task)
            task.add_done_callback(self._done)

    async def _send(self, delivery: WebhookAttempt) -> None:
        """Where the outcome cannot be written down, the lease runs out and the delivery is made again."""
        try:
            await deliver(self._parts, delivery)
        except InfrastructureError as error:
            log.warning("outcome not noted", action="webhook_unnoted", job_id=delivery.job_id, code=error.code)
        except Exception:
            log.exception("delivery failed", action="webhook_failed", job_id=delivery.job_id)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._ended.set()

    async def stop(self) -> None:
        """End what is under way: its lease runs out, and another scheduler makes the delivery."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def shared(
    due: Sequence[Candidate], busy: Sequence[tuple[str, str]], free: int, served: Mapping[str, float]
) -> list[str]:
    """The deliveries that get the free places: one after the other to the owner with the fewest under way.

    Of owners with as many, the one whose last turn is longest ago; of one owner, by due time; never past the limits.
    """
    owners, hosts, pairs = Counter(one[0] for one in busy), Counter(one[1] for one in busy), Counter(busy)
    last = {owner: (at, 0) for owner, at in served.items()}
    left, chosen = list(due), list[str]()
    while len(chosen) < free:
        left = [
            one
            for one in left
            if owners[one.owner] < webhooks.PER_OWNER
            and hosts[one.host] < webhooks.PER_HOST
            and pairs[one.owner, one.host] < webhooks.PER_OWNER_AND_HOST
        ]
        if not left:
            break
        one = min(left, key=lambda one: (owners[one.owner], last.get(one.owner, (0.0, 0)), one.order))
        left.remove(one)
        chosen.append(one.webhook_id)
        owners[one.owner] += 1
        hosts[one.host] += 1
        pairs[one.owner, one.host] += 1
        last[one.owner] = (math.inf, len(chosen))
    return chosen


async def deliver(parts: Application, delivery: WebhookAttempt) -> None:
    """One attempt, and what becomes of it."""
    body = webhook_body(delivery.payload)
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
            await webhooks.mark_delivered(session, delivery)
        log.info("webhook delivered", action="webhook_delivered", job_id=delivery.job_id, status=status)
    elif status == GONE or delivery.failures >= len(webhooks.RETRIES):
        await _give_up(parts, delivery, reason)
    else:
        await _try_again(parts, delivery, reason)


def headers(parts: Application, delivery: WebhookAttempt, body: bytes) -> dict[str, str]:
    """webhook-id is the same across retries; the time, and so the signature, is each attempt's own."""
    now = datetime.now(UTC)
    signer = Webhook(parts.secret.webhook_secret(delivery.owner))
    return {
        "Content-Type": "application/json",
        "webhook-id": delivery.webhook_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signer.sign(delivery.webhook_id, now, body.decode()),
    }


async def _try_again(parts: Application, delivery: WebhookAttempt, reason: str) -> None:
    delay = webhooks.RETRIES[delivery.failures] * random.uniform(1.0, 1.2)
    async with parts.database.write() as session:
        await webhooks.retry_later(session, delivery, delay, reason)
    log.warning("webhook not taken", action="webhook_retry", job_id=delivery.job_id, reason=reason, delay=round(delay))


async def _give_up(parts: Application, delivery: WebhookAttempt, reason: str) -> None:
    async with parts.database.write() as session:
        await webhooks.mark_failed(session, delivery, reason)
    log.error("webhook given up", action="webhook_given_up", job_id=delivery.job_id, reason=reason)
