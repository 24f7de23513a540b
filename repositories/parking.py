"""Items of housekeeping that keep failing: parked for a growing time, so that they do not delay the others."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import ParkedItem
from repositories.state_machine import apply

FIRST_PAUSE, LONGEST_PAUSE = 60.0, 21_600.0
"""Seconds for which an item is parked after its first failure, doubled at each further failure, up to 6 h."""
RETENTION = 7 * 86_400.0
"""Seconds after the end of its pause until an item that was not tried again is deleted."""


async def park(session: AsyncSession, step: str, item: str, reason: str) -> float:
    """Count a failure of the item; return the seconds until it may be tried again."""
    same_item = (ParkedItem.step == step, ParkedItem.item == item)
    failures = (await session.execute(select(ParkedItem.failures).where(*same_item))).scalar_one_or_none()
    pause = backoff(failures or 0)
    values = {"failures": (failures or 0) + 1, "reason": reason[:1000], "until": after(pause)}
    if failures is None:
        await session.execute(insert(ParkedItem).values(step=step, item=item, **values))
    else:
        await apply(session, update(ParkedItem).where(*same_item).values(**values))
    return pause


def backoff(failures: int) -> float:
    """Return the seconds of the pause after a failure with `failures` earlier ones."""
    return float(min(FIRST_PAUSE * 2 ** min(failures, 20), LONGEST_PAUSE))


async def unpark(session: AsyncSession, step: str, item: str) -> None:
    """Forget the failures of an item that has succeeded."""
    await apply(session, delete(ParkedItem).where(ParkedItem.step == step, ParkedItem.item == item))


async def list_parked(session: AsyncSession, step: str, limit: int = 5000) -> list[str]:
    """Return the step's items that are parked now."""
    statement = select(ParkedItem.item).where(ParkedItem.step == step, ParkedItem.until > after()).limit(limit)
    return list((await session.execute(statement)).scalars())


async def count_by_step(session: AsyncSession) -> dict[str, int]:
    """Return the number of items of each step, including those whose pause is over."""
    statement = select(ParkedItem.step, func.count()).group_by(ParkedItem.step)
    return {row[0]: row[1] for row in (await session.execute(statement)).all()}


async def delete_stale(session: AsyncSession) -> None:
    """Delete the items that have not been tried again for RETENTION seconds."""
    await apply(session, delete(ParkedItem).where(ParkedItem.until < after(-RETENTION)))
