"""Delivery of webhooks (Standard Webhooks): signed, at least once, queued in the database."""

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

from core import tracing
from core.database import Database
from core.errors import InfrastructureError
from core.outbound import Limits, Outbound, Refused, Unreachable
from core.scheduler_metrics import WEBHOOKS
from core.secret import Secret
from internal.services.webhook_payload import webhook_body
from repositories import webhooks
from repositories.webhooks import Candidate, WebhookAttempt

log = structlog.get_logger(__name__)
POLL_INTERVAL = 1.0
"""Seconds between two queries for due deliveries, unless one ends earlier."""
MAX_CONCURRENT = 32
"""Concurrent deliveries of one scheduler."""
LIMITS = Limits(total=15.0, read=15.0)
GONE = 410


class WebhookDeliverer:
    """Makes up to `MAX_CONCURRENT` deliveries at once; a free slot is refilled at once."""

    def __init__(self, database: Database, outbound: Outbound, secret: Secret, holder: str | None = None) -> None:
        self._database, self._outbound, self._secret = database, outbound, secret
        self._holder = holder or f"scheduler-{uuid.uuid4().hex[:12]}"
        self._running: set[asyncio.Task[None]] = set()
        self._finished = asyncio.Event()
        self._last_served: dict[str, float] = {}

    async def run_round(self) -> None:
        """Wait until a delivery has ended, at most `POLL_INTERVAL`, then fill the free slots."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL):
                await self._finished.wait()
        self._finished.clear()
        await self.fill()

    async def fill(self) -> None:
        """Lease due deliveries, as many as the free slots and the limits allow, and start sending them."""
        free = MAX_CONCURRENT - len(self._running)
        if free <= 0:
            return
        async with self._database.write() as session:
            under_way = await webhooks.list_leased(session)
            owners, hosts = Counter(owner for owner, _ in under_way), Counter(host for _, host in under_way)
            full_owners = {owner for owner, count in owners.items() if count >= webhooks.PER_OWNER}
            full_hosts = {host for host, count in hosts.items() if count >= webhooks.PER_HOST}
            due = await webhooks.list_due(session, full_owners, full_hosts)
            selected = select_fairly(due, under_way, free, self._last_served)
            attempts = await webhooks.lease(session, selected, self._holder) if selected else []
        waiting_owners = {candidate.owner for candidate in due}
        self._last_served = {owner: at for owner, at in self._last_served.items() if owner in waiting_owners}
        for attempt in attempts:
            self._last_served[attempt.owner] = time.monotonic()
            task = asyncio.create_task(self._run(attempt), name=f"webhook {attempt.webhook_id}")
            self._running.add(task)
            task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._finished.set()

    async def _run(self, attempt: WebhookAttempt) -> None:
        # a delivery whose outcome is not recorded is repeated once its lease has lapsed
        try:
            with tracing.delivery(attempt.job_id):
                await self.deliver(attempt)
        except InfrastructureError as error:
            log.warning(
                "webhook outcome not recorded", action="webhook_not_recorded", job_id=attempt.job_id, code=error.code
            )
        except Exception:
            log.exception("webhook delivery failed", action="webhook_failed", job_id=attempt.job_id)

    async def deliver(self, attempt: WebhookAttempt) -> None:
        """Make one attempt and record its outcome. Raises DatabaseUnavailable."""
        body = webhook_body(attempt.payload)
        try:
            status = await self._outbound.post(attempt.url, body, self.headers(attempt, body), LIMITS)
            reason = f"the receiver answered {status}"
        except Refused as error:
            await self._give_up(attempt, str(error))
            return
        except Unreachable as error:
            status, reason = 0, str(error)
        if 200 <= status < 300:
            async with self._database.write() as session:
                await webhooks.mark_delivered(session, attempt)
            WEBHOOKS.labels("delivered").inc()
            log.info("webhook delivered", action="webhook_delivered", job_id=attempt.job_id, status=status)
        elif status == GONE or attempt.failures >= len(webhooks.RETRIES):
            await self._give_up(attempt, reason)
        else:
            await self._schedule_retry(attempt, reason)

    def headers(self, attempt: WebhookAttempt, body: bytes) -> dict[str, str]:
        """Return the headers. Retries have the same `webhook-id`, but their own timestamp and signature."""
        now = datetime.now(UTC)
        signer = Webhook(self._secret.webhook_secret(attempt.owner))
        return {
            "Content-Type": "application/json",
            "webhook-id": attempt.webhook_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signer.sign(attempt.webhook_id, now, body.decode()),
            **tracing.headers(attempt.job_id),
        }

    async def _schedule_retry(self, attempt: WebhookAttempt, reason: str) -> None:
        delay = webhooks.RETRIES[attempt.failures] * random.uniform(1.0, 1.2)
        async with self._database.write() as session:
            await webhooks.retry_later(session, attempt, delay, reason)
        WEBHOOKS.labels("retried").inc()
        tracing.record_error("webhook_retry")
        log.warning(
            "webhook failed, will retry",
            action="webhook_retry",
            job_id=attempt.job_id,
            reason=reason,
            delay=round(delay),
        )

    async def _give_up(self, attempt: WebhookAttempt, reason: str) -> None:
        async with self._database.write() as session:
            await webhooks.mark_failed(session, attempt, reason)
        WEBHOOKS.labels("given_up").inc()
        tracing.record_error("webhook_given_up")
        log.error("webhook failed permanently", action="webhook_given_up", job_id=attempt.job_id, reason=reason)

    async def stop(self) -> None:
        """Cancel deliveries under way. Another scheduler repeats them once their leases have lapsed."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def select_fairly(
    due: Sequence[Candidate], under_way: Sequence[tuple[str, str]], free: int, last_served: Mapping[str, float]
) -> list[str]:
    """Return the ids of the deliveries that get the free slots, within the limits of owners and hosts.

    Each slot goes to the owner with the fewest deliveries under way, and among those to the one served longest ago. An
    owner's deliveries are ordered by due time.

    under_way: owner and host of each delivery; last_served: monotonic seconds by owner.
    """
    owners, hosts = Counter(owner for owner, _ in under_way), Counter(host for _, host in under_way)
    pairs = Counter(under_way)
    turns = {owner: (at, 0) for owner, at in last_served.items()}
    waiting, selected = list(due), list[str]()
    while len(selected) < free:
        waiting = [
            candidate
            for candidate in waiting
            if owners[candidate.owner] < webhooks.PER_OWNER
            and hosts[candidate.host] < webhooks.PER_HOST
            and pairs[candidate.owner, candidate.host] < webhooks.PER_OWNER_AND_HOST
        ]
        if not waiting:
            break
        candidate = min(waiting, key=lambda each: (owners[each.owner], turns.get(each.owner, (0.0, 0)), each.order))
        waiting.remove(candidate)
        selected.append(candidate.webhook_id)
        owners[candidate.owner] += 1
        hosts[candidate.host] += 1
        pairs[candidate.owner, candidate.host] += 1
        turns[candidate.owner] = (math.inf, len(selected))
    return selected
