"""Webhook deliveries: written in the transaction that ends a job, leased by whoever sends them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from core.domain.json_values import showable
from repositories.models import Job, WebhookDelivery

COMPLETED, FAILED = "transcription.completed", "transcription.failed"
RETRIES = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
"""Seconds before each retry (Standard Webhooks' own suggestion, cut to six)."""
BATCH, PER_HOST = 20, 2
LEASE = 45.0
"""Seconds a sender has for one delivery: its deadline of 15, and time to write down how it ended."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt; failures: of the attempts before."""

    webhook_id: str
    job_id: str
    owner: str
    url: str
    payload: dict[str, Any]
    failures: int


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
            "result_url": f"/api/v1/result/{job.job_id}" if job.status == JobStatus.COMPLETED else None,
        },
    }


async def take_due(session: AsyncSession) -> list[Delivery]:
    """Lease at most `BATCH` due deliveries, `PER_HOST` of one host; any number of schedulers may do so."""
    due = (WebhookDelivery.due_at <= after(), WebhookDelivery.status == JobStatus.PENDING)
    place = func.row_number().over(partition_by=WebhookDelivery.host, order_by=WebhookDelivery.due_at).label("place")
    ranked = select(WebhookDelivery.webhook_id, place).where(*due).subquery()
    some = select(ranked.c.webhook_id).where(ranked.c.place <= PER_HOST).limit(BATCH)
    row = WebhookDelivery
    statement = (
        update(row)
        .where(row.webhook_id.in_(some.scalar_subquery()), *due)
        .values(due_at=after(LEASE), publishes=row.publishes + 1, updated_at=after())
        .returning(row.webhook_id, row.job_id, row.url, row.payload, row.failures)
        .execution_options(synchronize_session=False)
    )
    taken = (await session.execute(statement)).all()
    owners = select(Job.job_id, Job.owner).where(Job.job_id.in_({row.job_id for row in taken}))
    owner_of = {row.job_id: row.owner for row in (await session.execute(owners)).all()}
    return [
        Delivery(one.webhook_id, one.job_id, owner_of[one.job_id], one.url, one.payload, one.failures) for one in taken
    ]


async def delivered(session: AsyncSession, delivery: Delivery) -> None:
    await _end(session, delivery, status=JobStatus.COMPLETED, delivered_at=after(), error_message=None)


async def given_up(session: AsyncSession, delivery: Delivery, reason: str) -> None:
    await _end(session, delivery, status=JobStatus.FAILED, error_message=reason[:1000])


async def again(session: AsyncSession, delivery: Delivery, delay: float, reason: str) -> None:
    """Count a failed attempt and try again after `delay` seconds."""
    values = {"failures": WebhookDelivery.failures + 1, "due_at": after(delay), "error_message": reason[:1000]}
    await _write(session, delivery, values)


async def _end(session: AsyncSession, delivery: Delivery, **values: Any) -> None:
    await _write(session, delivery, {"due_at": None, **values})


async def _write(session: AsyncSession, delivery: Delivery, values: dict[str, Any]) -> None:
    await session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == delivery.webhook_id)
        .values(updated_at=after(), **values)
        .execution_options(synchronize_session=False)
    )


async def send_again(session: AsyncSession, job_id: str) -> bool:
    """Make the job's last delivery due once more, under its own id; False: there is none."""
    last = (
        select(WebhookDelivery.webhook_id)
        .join(Job, Job.job_id == WebhookDelivery.job_id)
        .where(WebhookDelivery.job_id == job_id, Job.status.not_in(OPEN))
        .order_by(WebhookDelivery.created_at.desc())
        .limit(1)
    )
    statement = (
        update(WebhookDelivery)
        .where(WebhookDelivery.webhook_id.in_(last.scalar_subquery()))
        .values(status=JobStatus.PENDING, failures=0, due_at=after(), updated_at=after())
        .returning(WebhookDelivery.webhook_id)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


async def all_of(session: AsyncSession, job_id: str) -> list[WebhookDelivery]:
    """A job's deliveries, oldest first."""
    statement = select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)
    return list((await session.execute(statement.order_by(WebhookDelivery.created_at))).scalars())
