"""Counters of the rate limits in the database, shared by several API processes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import case, select
from sqlalchemy import delete as delete_rows
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import RateLimit
from repositories.state_machine import apply


async def increment(session: AsyncSession, key: str, window: float, amount: int, *, sqlite: bool) -> int:
    """Add `amount` to the counter and return the sum. A counter whose window (seconds) has passed is reset."""
    insert = sqlite_insert if sqlite else postgresql_insert
    over = RateLimit.expires_at <= after()
    statement = insert(RateLimit).values(key=key, hits=amount, expires_at=after(window))
    counted = statement.on_conflict_do_update(
        index_elements=[RateLimit.key],
        set_={
            "hits": case((over, amount), else_=RateLimit.hits + amount),
            "expires_at": case((over, after(window)), else_=RateLimit.expires_at),
        },
    ).returning(RateLimit.hits)
    return int((await session.execute(counted)).scalar_one())


async def get(session: AsyncSession, key: str) -> tuple[int, datetime] | None:
    """Return the count and the end of the current window; None if there is none."""
    statement = select(RateLimit).where(RateLimit.key == key, RateLimit.expires_at > after())
    window = (await session.execute(statement)).scalar_one_or_none()
    return None if window is None else (window.hits, window.expires_at)


async def delete(session: AsyncSession, key: str) -> None:
    """Delete the counter."""
    await apply(session, delete_rows(RateLimit).where(RateLimit.key == key))


async def delete_expired(session: AsyncSession) -> None:
    """Delete the counters whose window has passed."""
    await apply(session, delete_rows(RateLimit).where(RateLimit.expires_at <= after()))
