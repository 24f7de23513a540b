"""Removal of old measurements."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.batches import locked
from repositories.models import Metric
from repositories.state_machine import apply

BATCH = 2_000


async def delete_old(session: AsyncSession, older_than: float) -> int:
    """Delete those of the BATCH oldest metrics that are over `older_than` seconds old; return their number.

    Of several schedulers, each row is deleted by one.
    """
    oldest = locked(select(Metric.id, Metric.recorded_at).order_by(Metric.id).limit(BATCH)).subquery()
    old = select(oldest.c.id).where(oldest.c.recorded_at <= after(-older_than))
    statement = delete(Metric).where(Metric.id.in_(old)).returning(Metric.id)
    return len((await apply(session, statement)).all())
