"""Intents: notes that an object is about to be written, so that it is collected if its writer fails."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import UploadIntent
from repositories.state_machine import apply
from repositories.unique import unique_key

LIFETIME = 86_400.0
"""Seconds that an upload may take before its object is collected."""


async def create(
    session: AsyncSession,
    key: str,
    job_id: str,
    lifetime: float = LIFETIME,
    *,
    owner: str | None = None,
    submit_options: dict[str, Any] | None = None,
) -> None:
    """Note that the object `key` is about to be written; it may be collected after `lifetime` seconds.

    owner and submit_options: only of an upload link, for the job that its start creates. Raises AlreadyExists.
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


async def get_link(session: AsyncSession, job_id: str) -> UploadIntent | None:
    """Return the intent of an upload link that can still be started."""
    statement = select(UploadIntent).where(
        UploadIntent.job_id == job_id, UploadIntent.owner.is_not(None), UploadIntent.expires_at > after()
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def extend_link(session: AsyncSession, job_id: str, lifetime: float) -> bool:
    """Let an upload link that can still be started expire `lifetime` seconds from now; return False if it cannot."""
    statement = (
        update(UploadIntent)
        .where(UploadIntent.job_id == job_id, UploadIntent.owner.is_not(None), UploadIntent.expires_at > after())
        .values(expires_at=after(lifetime))
        .returning(UploadIntent.key)
    )
    return (await session.execute(statement)).first() is not None


async def count_open_links(session: AsyncSession, owner: str) -> int:
    """Return the number of the owner's upload links that can still be started."""
    is_open = (UploadIntent.owner == owner, UploadIntent.expires_at > after())
    return (await session.execute(select(func.count()).select_from(UploadIntent).where(*is_open))).scalar_one()


async def consume_link(session: AsyncSession, key: str) -> bool:
    """Use the link up; return False if it was used before or has expired.

    The intent stays until it expires, because a signed PUT may still write the object.
    """
    statement = (
        update(UploadIntent)
        .where(UploadIntent.key == key, UploadIntent.owner.is_not(None), UploadIntent.expires_at > after())
        .values(owner=None, submit_options=null())
        .returning(UploadIntent.key)
    )
    return (await apply(session, statement)).first() is not None


async def fulfil(session: AsyncSession, key: str) -> bool:
    """Delete the intent of an object that a job refers to; return False if it had expired or is gone.

    The object may then have been collected: a caller that needs it rolls back, which keeps the intent.
    """
    statement = delete_rows(UploadIntent).where(UploadIntent.key == key).returning(UploadIntent.expires_at > after())
    return bool((await apply(session, statement)).scalar_one_or_none())


async def list_expired(session: AsyncSession, limit: int = 100, without: Collection[str] = ()) -> list[UploadIntent]:
    """Return expired intents, oldest first, except those of the keys in `without`."""
    statement = select(UploadIntent).where(UploadIntent.expires_at <= after(), UploadIntent.key.not_in(without))
    return list((await session.execute(statement.order_by(UploadIntent.expires_at).limit(limit))).scalars())


async def lock_expired(session: AsyncSession, key: str) -> bool:
    """Lock an expired intent, whose object is to be collected; return False if it is gone.

    Waits for a transaction that fulfils the intent, which holds the row until its COMMIT.
    """
    statement = (
        update(UploadIntent)
        .where(UploadIntent.key == key, UploadIntent.expires_at <= after())
        .values(owner=None, submit_options=None)
        .returning(UploadIntent.key)
    )
    return (await apply(session, statement)).first() is not None


async def delete(session: AsyncSession, key: str) -> None:
    """Delete the intent."""
    await apply(session, delete_rows(UploadIntent).where(UploadIntent.key == key))
