"""Counters of the rate limits on the shared database, so that several API processes count together."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import case, delete, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import RateLimit


async def count(session: AsyncSession, key: str, window: float, amount: int, *, sqlite: bool) -> int:
    """Add `amount` to the counter, which begins anew once its window (seconds) has passed; returns the sum."""
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


async def read(session: AsyncSession, key: str) -> tuple[int, datetime] | None:
    """Count and end of the present window, None where there is none."""
    statement = select(RateLimit).where(RateLimit.key == key, RateLimit.expires_at > after())
    found = (await session.execute(statement)).scalar_one_or_none()
    return None if found is None else (found.hits, found.expires_at)


async def clear(session: AsyncSession, key: str) -> None:
    await session.execute(delete(RateLimit).where(RateLimit.key == key))


async def forget_expired(session: AsyncSession) -> None:
    await session.execute(delete(RateLimit).where(RateLimit.expires_at <= after()))
