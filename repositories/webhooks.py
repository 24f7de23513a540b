"""Webhook deliveries: inserted in the transaction that ends a job, leased by the scheduler that sends them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Update, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from core.domain.json_values import showable
from repositories.models import Job, WebhookDelivery
from repositories.state_machine import apply

COMPLETED, FAILED = "transcription.completed", "transcription.failed"
RETRIES = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Seconds before each retry: the schedule suggested by Standard Webhooks, without its last steps."""
PER_OWNER, PER_HOST, PER_OWNER_AND_HOST = 4, 4, 2
"""Maximum concurrent deliveries of all schedulers: of one owner, to one host, and of one owner to one host."""
MAX_CANDIDATES = 500
RESEND_INTERVAL = 60.0
"""Minimum seconds between two deliveries of one job that its owner requests."""
LEASE = 45.0
"""Seconds of the lease of a delivery: its deadline of 15 s, and time to record the outcome."""


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """A leased delivery. failures: number of earlier failed attempts; claim: number of the lease."""

    webhook_id: str
    job_id: str
    owner: str
    url: str
    payload: dict[str, Any]
    failures: int
    claim: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due delivery. order: its position by due time among the candidates."""

    webhook_id: str
    owner: str
    host: str
    order: int


async def enqueue(session: AsyncSession, job_id: str, kind: str) -> None:
    """Insert the delivery of a job that has just ended, if it has a callback URL."""
    statement = select(Job).where(Job.job_id == job_id, Job.callback_url.is_not(None), Job.deleted_at.is_(None))
    job = (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()
    if job is None or job.callback_url is None:
        return
    await session.execute(
        insert(WebhookDelivery).values(
            webhook_id=f"msg_{uuid.uuid4().hex}",
            job_id=job_id,
            url=job.callback_url,
            owner=job.owner,
            host=(urlsplit(job.callback_url).hostname or "")[:255],
            event_type=kind,
            payload=_payload(job, kind),
            status=JobStatus.PENDING,
            due_at=after(),
            created_at=after(),
            updated_at=after(),
        )
    )


def _payload(job: Job, kind: str) -> dict[str, Any]:
    ended = job.completed_at
    return {
        "type": kind,
        "timestamp": ended.isoformat() if ended else None,
        "data": {
            "job_id": job.job_id,
            "request_id": job.request_id,
            "status": job.status,
            "language": job.detected_language or job.language,
            "duration_seconds": job.audio_duration_seconds,
            "confidence": job.confidence,
            "error_code": job.error_code,
            "error_message": job.error_message,
            "metadata": showable(job.client_metadata),
        },
    }


async def list_leased(session: AsyncSession) -> list[tuple[str, str]]:
    """Return the owner and host of each leased delivery."""
    leased = (
        WebhookDelivery.holder.is_not(None),
        WebhookDelivery.due_at > after(),
        WebhookDelivery.status == JobStatus.PENDING,
    )
    statement = select(WebhookDelivery.owner, WebhookDelivery.host).where(*leased)
    return [(row.owner, row.host) for row in (await session.execute(statement)).all()]


async def list_due(session: AsyncSession, full_owners: Set[str], full_hosts: Set[str]) -> list[Candidate]:
    """Return due deliveries, oldest first: a few of each owner and each of its hosts, none of those at their limit.

    The first deliveries of every owner are among them, however long the backlogs of others are.
    """
    table = WebhookDelivery
    due = (table.due_at <= after(), table.status == JobStatus.PENDING)
    free = (table.owner.not_in(full_owners), table.host.not_in(full_hosts))
    turn = func.row_number().over(partition_by=(table.owner, table.host), order_by=(table.due_at, table.webhook_id))
    columns = (table.webhook_id, table.owner, table.host, table.due_at)
    pairs = select(*columns, turn.label("turn")).where(*due, *free).subquery()
    place = func.row_number().over(partition_by=pairs.c.owner, order_by=(pairs.c.turn, pairs.c.due_at))
    owned = select(pairs, place.label("place")).where(pairs.c.turn <= PER_OWNER_AND_HOST).subquery()
    statement = (
        select(owned.c.webhook_id, owned.c.owner, owned.c.host, owned.c.due_at)
        .where(owned.c.place <= 2 * PER_OWNER)
        .order_by(owned.c.place, owned.c.due_at)
        .limit(MAX_CANDIDATES)
    )
    rows = sorted((await session.execute(statement)).all(), key=lambda row: (row.due_at, row.webhook_id))
    return [Candidate(row.webhook_id, row.owner, row.host, order) for order, row in enumerate(rows)]


async def lease(session: AsyncSession, chosen: Sequence[str], holder: str) -> list[WebhookAttempt]:
    """Lease the selected deliveries that are still due. Of several schedulers, each delivery is leased by one."""
    table = WebhookDelivery
    statement = (
        update(table)
        .where(table.webhook_id.in_(chosen), table.due_at <= after(), table.status == JobStatus.PENDING)
        .values(
            due_at=after(LEASE),
            holder=holder,
            claim=table.claim + 1,
            publishes=table.publishes + 1,
            updated_at=after(),
        )
        .returning(table.webhook_id, table.job_id, table.owner, table.url, table.payload, table.failures, table.claim)
    )
    return [WebhookAttempt(*row) for row in (await apply(session, statement)).all()]


async def mark_delivered(session: AsyncSession, attempt: WebhookAttempt) -> None:
    """Record a success. It needs no lease: the receiver has the message, even if the lease has ended."""
    statement = _settled(attempt).values(
        status=JobStatus.COMPLETED, due_at=None, delivered_at=after(), error_message=None
    )
    await apply(session, statement)


async def mark_failed(session: AsyncSession, attempt: WebhookAttempt, reason: str) -> None:
    """Record the last failure, unless another scheduler has the lease."""
    statement = _settled(attempt).values(status=JobStatus.FAILED, due_at=None, error_message=reason[:1000])
    await apply(session, statement.where(WebhookDelivery.claim == attempt.claim))


async def retry_later(session: AsyncSession, attempt: WebhookAttempt, delay: float, reason: str) -> None:
    """Count a failed attempt and schedule the next one in `delay` seconds, unless another scheduler has the lease."""
    statement = _settled(attempt).values(
        failures=WebhookDelivery.failures + 1, due_at=after(delay), error_message=reason[:1000]
    )
    await apply(session, statement.where(WebhookDelivery.claim == attempt.claim))


def _settled(attempt: WebhookAttempt) -> Update:
    same_delivery = WebhookDelivery.webhook_id == attempt.webhook_id
    return update(WebhookDelivery).where(same_delivery).values(holder=None, updated_at=after())


async def resend(session: AsyncSession, job_id: str) -> float | None:
    """Make the job's last delivery due again, with the same id; return None if there is none.

    Returns 0, or the seconds to wait because it is under way or was resent less than RESEND_INTERVAL seconds ago.
    """
    table = WebhookDelivery
    last = (
        select(table.webhook_id, table.holder, table.due_at, table.asked_at, after().label("now"))
        .join(Job, Job.job_id == table.job_id)
        .where(table.job_id == job_id, Job.status.not_in(OPEN))
        .order_by(table.created_at.desc())
        .limit(1)
        .with_for_update(of=table)
    )
    delivery = (await session.execute(last)).first()
    if delivery is None:
        return None
    wait = 0.0
    if delivery.asked_at is not None:
        wait = RESEND_INTERVAL - (delivery.now - delivery.asked_at).total_seconds()
    if delivery.holder is not None and delivery.due_at is not None:
        wait = max(wait, (delivery.due_at - delivery.now).total_seconds())
    if wait > 0:
        return wait
    reset = {"status": JobStatus.PENDING, "failures": 0, "holder": None, "due_at": after(), "asked_at": after()}
    statement = update(table).where(table.webhook_id == delivery.webhook_id).values(**reset, updated_at=after())
    await apply(session, statement)
    return 0.0
