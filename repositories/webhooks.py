"""Webhook deliveries: written in the transaction that ends a job, leased by the scheduler that sends them."""

from __future__ import annotations

import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from core.domain.json_values import showable
from repositories.models import Job, WebhookDelivery

COMPLETED, FAILED = "transcription.completed", "transcription.failed"
RETRIES = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Seconds before each retry (Standard Webhooks' own suggestion, cut to six)."""
PER_OWNER, PER_HOST, PER_OWNER_AND_HOST = 4, 4, 2
"""Deliveries under way at once, of all schedulers together: of one owner, to one host, and of one owner to one host."""
CANDIDATES = 500
ASK_AGAIN = 60.0
"""Seconds between two deliveries of one job that are asked for by hand."""
LEASE = 45.0
"""Seconds a sender has for one delivery: its deadline of 15, and time to write down how it ended."""


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """A leased delivery. failures: of the attempts before; claim: number of the lease."""

    webhook_id: str
    job_id: str
    owner: str
    url: str
    payload: dict[str, Any]
    failures: int
    claim: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery that is due; order: its place by due time among those that are looked at."""

    webhook_id: str
    owner: str
    host: str
    order: int


async def enqueue(session: AsyncSession, job_id: str, kind: str) -> None:
    """Note the delivery of a job that has just ended, where its sender gave a callback."""
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


async def under_way(session: AsyncSession) -> list[tuple[str, str]]:
    """Owner and host of each delivery that some scheduler has a lease on."""
    row = WebhookDelivery
    statement = select(row.owner, row.host).where(
        row.holder.is_not(None), row.due_at > after(), row.status == JobStatus.PENDING
    )
    return [(one.owner, one.host) for one in (await session.execute(statement)).all()]


async def candidates(session: AsyncSession, full_owners: Set[str], full_hosts: Set[str]) -> list[Candidate]:
    """Due deliveries, oldest first, a few of each owner and of each of his hosts; none of those that are full.

    However long one owner's backlog, and over however many hosts, the first of every other owner are among them.
    """
    row = WebhookDelivery
    due = (row.due_at <= after(), row.status == JobStatus.PENDING)
    free = (row.owner.not_in(full_owners), row.host.not_in(full_hosts))
    turn = func.row_number().over(partition_by=(row.owner, row.host), order_by=(row.due_at, row.webhook_id))
    pairs = select(row.webhook_id, row.owner, row.host, row.due_at, turn.label("turn")).where(*due, *free).subquery()
    place = func.row_number().over(partition_by=pairs.c.owner, order_by=(pairs.c.turn, pairs.c.due_at))
    owned = select(pairs, place.label("place")).where(pairs.c.turn <= PER_OWNER_AND_HOST).subquery()
    statement = (
        select(owned.c.webhook_id, owned.c.owner, owned.c.host, owned.c.due_at)
        .where(owned.c.place <= 2 * PER_OWNER)
        .order_by(owned.c.place, owned.c.due_at)
        .limit(CANDIDATES)
    )
    rows = sorted((await session.execute(statement)).all(), key=lambda one: (one.due_at, one.webhook_id))
    return [Candidate(one.webhook_id, one.owner, one.host, number) for number, one in enumerate(rows)]


async def lease(session: AsyncSession, chosen: Sequence[str], holder: str) -> list[WebhookAttempt]:
    """Lease those of the chosen deliveries that are still due; any number of schedulers may do so."""
    row = WebhookDelivery
    statement = (
        update(row)
        .where(row.webhook_id.in_(chosen), row.due_at <= after(), row.status == JobStatus.PENDING)
        .values(
            due_at=after(LEASE),
            holder=holder,
            claim=row.claim + 1,
            publishes=row.publishes + 1,
            updated_at=after(),
        )
        .returning(row.webhook_id, row.job_id, row.owner, row.url, row.payload, row.failures, row.claim)
        .execution_options(synchronize_session=False)
    )
    return [WebhookAttempt(*one) for one in (await session.execute(statement)).all()]


async def delivered(session: AsyncSession, delivery: WebhookAttempt) -> None:
    """Success needs no lease: the receiver has it, whatever happened here meanwhile."""
    await _end(session, delivery, status=JobStatus.COMPLETED, delivered_at=after(), error_message=None)


async def given_up(session: AsyncSession, delivery: WebhookAttempt, reason: str) -> None:
    await _end(
        session, delivery, WebhookDelivery.claim == delivery.claim, status=JobStatus.FAILED, error_message=reason[:1000]
    )


async def again(session: AsyncSession, delivery: WebhookAttempt, delay: float, reason: str) -> None:
    """Count a failed attempt and try again after `delay` seconds; nothing where another scheduler has the lease now."""
    values = {"failures": WebhookDelivery.failures + 1, "due_at": after(delay), "error_message": reason[:1000]}
    await _write(session, delivery, values, WebhookDelivery.claim == delivery.claim)


async def _end(session: AsyncSession, delivery: WebhookAttempt, *fence: ColumnElement[bool], **values: Any) -> None:
    await _write(session, delivery, {"due_at": None, **values}, *fence)


async def _write(
    session: AsyncSession, delivery: WebhookAttempt, values: dict[str, Any], *fence: ColumnElement[bool]
) -> None:
    await session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == delivery.webhook_id, *fence)
        .values(holder=None, updated_at=after(), **values)
        .execution_options(synchronize_session=False)
    )


async def send_again(session: AsyncSession, job_id: str) -> float | None:
    """Make the job's last delivery due once more, under its own id.

    Returns 0, or the seconds until this may be asked again: it is under way, or was asked for within ASK_AGAIN seconds.
    None: there is none.
    """
    row = WebhookDelivery
    last = (
        select(row.webhook_id, row.holder, row.due_at, row.asked_at, after().label("now"))
        .join(Job, Job.job_id == row.job_id)
        .where(row.job_id == job_id, Job.status.not_in(OPEN))
        .order_by(row.created_at.desc())
        .limit(1)
        .with_for_update(of=row)
    )
    found = (await session.execute(last)).first()
    if found is None:
        return None
    wait = 0.0 if found.asked_at is None else ASK_AGAIN - (found.now - found.asked_at).total_seconds()
    if found.holder is not None and found.due_at is not None:
        wait = max(wait, (found.due_at - found.now).total_seconds())
    if wait > 0:
        return wait
    await session.execute(
        update(row)
        .where(row.webhook_id == found.webhook_id)
        .values(status=JobStatus.PENDING, failures=0, holder=None, due_at=after(), asked_at=after(), updated_at=after())
        .execution_options(synchronize_session=False)
    )
    return 0.0
