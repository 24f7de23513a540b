"""Upload intents: a note of every object that may be written before its job exists, so that none is orphaned."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import delete, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import UploadIntent
from repositories.unique import unique_key

LIFETIME = 86_400.0
"""Seconds an upload may take before what it left is collected."""


async def note(
    session: AsyncSession,
    key: str,
    job_id: str,
    lifetime: float = LIFETIME,
    *,
    owner: str | None = None,
    submit_options: dict[str, Any] | None = None,
) -> None:
    """Note that the object is about to be written. Raises AlreadyExists.

    owner and submit_options: of an upload by link, for the job that its start will make.
    """
    values = {
        "key": key,
        "job_id": job_id,
        "expires_at": after(lifetime),
        "owner": owner,
        "submit_options": submit_options,
    }
    with unique_key():
        await session.execute(insert(UploadIntent).values(**values))


async def of_link(session: AsyncSession, job_id: str) -> UploadIntent | None:
    """What an upload by link was promised for, until it expires."""
    statement = select(UploadIntent).where(
        UploadIntent.job_id == job_id, UploadIntent.owner.is_not(None), UploadIntent.expires_at > after()
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def open_links(session: AsyncSession, owner: str) -> int:
    """Upload links of the owner that can still be started."""
    statement = select(func.count()).select_from(UploadIntent)
    mine = statement.where(UploadIntent.owner == owner, UploadIntent.expires_at > after())
    return (await session.execute(mine)).scalar_one()


async def start_link(session: AsyncSession, key: str) -> bool:
    """Use the link up; False: somebody else has, or it has expired.

    The note stays until it expires: a PUT that was signed before may still write the object.
    """
    statement = (
        update(UploadIntent)
        .where(UploadIntent.key == key, UploadIntent.owner.is_not(None), UploadIntent.expires_at > after())
        .values(owner=None, submit_options=null())
        .returning(UploadIntent.key)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


async def keep(session: AsyncSession, key: str) -> bool:
    """The object has found its place: drop the note; False: it has expired, so the object may be gone already."""
    statement = delete(UploadIntent).where(UploadIntent.key == key, UploadIntent.expires_at > after())
    return (await session.execute(statement.returning(UploadIntent.key))).first() is not None


async def expired(session: AsyncSession, limit: int = 100, without: Collection[str] = ()) -> list[UploadIntent]:
    """The notes that expired first, except those of the keys in `without`."""
    statement = select(UploadIntent).where(UploadIntent.expires_at <= after(), UploadIntent.key.not_in(without))
    return list((await session.execute(statement.order_by(UploadIntent.expires_at).limit(limit))).scalars())


async def take_expired(session: AsyncSession, key: str) -> bool:
    """Lock the expired note for collecting; False: it is gone, its object has found its place.

    A transaction that keeps the note holds the row until its COMMIT, so collecting waits for its outcome.
    """
    statement = (
        update(UploadIntent)
        .where(UploadIntent.key == key, UploadIntent.expires_at <= after())
        .values(owner=None, submit_options=None)
        .returning(UploadIntent.key)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


async def drop(session: AsyncSession, key: str) -> None:
    await session.execute(delete(UploadIntent).where(UploadIntent.key == key))
