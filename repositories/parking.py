"""Items of housekeeping that keep failing: parked for a growing time, so that they do not hold up the others."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import ParkedItem

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 21_600.0
"""Seconds an item is left alone after its first failure, doubled at each further one, up to 6 h."""
FORGET = 7 * 86_400.0
"""Seconds after which an item that nobody has tried again is forgotten."""


async def park(session: AsyncSession, step: str, item: str, reason: str) -> float:
    """Count a failure of the item. Returns the seconds until it may be tried again."""
    mine = (ParkedItem.step == step, ParkedItem.item == item)
    before = (await session.execute(select(ParkedItem.failures).where(*mine))).scalar_one_or_none()
    pause = pause_after(before or 0)
    values = {"failures": (before or 0) + 1, "reason": reason[:1000], "until": after(pause)}
    if before is None:
        await session.execute(insert(ParkedItem).values(step=step, item=item, **values))
    else:
        await session.execute(update(ParkedItem).where(*mine).values(**values))
    return pause


def pause_after(failures: int) -> float:
    return float(min(FIRST_PAUSE * 2 ** min(failures, 20), LONGEST_PAUSE))


async def unpark(session: AsyncSession, step: str, item: str) -> None:
    await session.execute(delete(ParkedItem).where(ParkedItem.step == step, ParkedItem.item == item))


async def parked(session: AsyncSession, step: str, limit: int = 5000) -> list[str]:
    """The step's items that are left alone now."""
    statement = select(ParkedItem.item).where(ParkedItem.step == step, ParkedItem.until > after()).limit(limit)
    return list((await session.execute(statement)).scalars())


async def counts(session: AsyncSession) -> dict[str, int]:
    """How many items are parked, by step."""
    statement = select(ParkedItem.step, func.count()).group_by(ParkedItem.step)
    rows = (await session.execute(statement)).all()
    return {row[0]: row[1] for row in rows}


async def forget(session: AsyncSession) -> None:
    await session.execute(delete(ParkedItem).where(ParkedItem.until < after(-FORGET)))
