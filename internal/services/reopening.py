"""Publish what a reopened job (replay, retry) or the scheduler's due rows stand for."""

from __future__ import annotations

from collections.abc import Sequence

from internal.bootstrap import Parts
from internal.services import publishing
from repositories import jobs
from repositories.claims import Released


async def publish(parts: Parts, released: Sequence[Released], level: int | None = None) -> None:
    """Raises DatabaseUnavailable; a broker that is down is left to the scheduler."""
    async with parts.database.read() as session:
        found = await jobs.by_ids(session, {row.job_id for row in released})
    messages = [publishing.message_for(found[row.job_id], row, level) for row in released if row.job_id in found]
    await parts.publisher.publish(messages)
