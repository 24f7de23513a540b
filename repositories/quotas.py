"""Amounts limited by an owner's quotas: unfinished jobs, their audio, and bytes per day."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN
from repositories.models import Job


async def lock_owner(session: AsyncSession, owner: str, *, sqlite: bool) -> None:
    """Serialise checks of the owner's quotas until the transaction ends. SQLite has a single writer anyway."""
    if not sqlite:
        await session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"quota {owner}"))))


def _open_jobs(owner: str) -> ColumnElement[bool]:
    return and_(Job.owner == owner, Job.status.in_(OPEN), Job.deleted_at.is_(None))


async def count_open(session: AsyncSession, owner: str) -> int:
    """Return the number of the owner's unfinished jobs."""
    return (await session.execute(select(func.count()).select_from(Job).where(_open_jobs(owner)))).scalar_one()


async def queued_seconds(session: AsyncSession, owner: str) -> float:
    """Return the seconds of audio in the owner's unfinished jobs of known duration."""
    statement = select(func.sum(Job.audio_duration_seconds)).where(_open_jobs(owner))
    return float((await session.execute(statement)).scalar_one() or 0.0)


async def bytes_since(session: AsyncSession, owner: str, seconds: float) -> int:
    """Return the bytes of the recordings that the owner submitted in the last `seconds`."""
    statement = select(func.sum(Job.file_size_mb)).where(Job.owner == owner, Job.created_at > after(-seconds))
    return int(((await session.execute(statement)).scalar_one() or 0.0) * 1024 * 1024)


async def resets_in(session: AsyncSession, owner: str, seconds: float) -> float:
    """Return the seconds until the owner's oldest job of the last `seconds` no longer counts."""
    statement = select(func.min(Job.created_at), after()).where(Job.owner == owner, Job.created_at > after(-seconds))
    oldest, now = (await session.execute(statement)).one()
    return seconds if oldest is None else seconds - float((now - oldest).total_seconds())
