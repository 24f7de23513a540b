"""Models that an operator asked every consumer to install, or to remove."""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import WantedModel
from repositories.state_machine import apply


async def list_all(session: AsyncSession) -> list[WantedModel]:
    """Return the wanted and the removed models, by name."""
    return list((await session.execute(select(WantedModel).order_by(WantedModel.name))).scalars())


async def record(session: AsyncSession, name: str, reference: str, *, wanted: bool) -> None:
    """Record that consumers are to install the model, or to remove it."""
    values = {"reference": reference, "wanted": wanted, "changed_at": after()}
    same = WantedModel.name == name
    changed = await apply(session, update(WantedModel).where(same).values(**values).returning(WantedModel.name))
    if changed.first() is None:
        await session.execute(insert(WantedModel).values(name=name, **values))
