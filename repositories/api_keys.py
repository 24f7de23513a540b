"""API keys: an id that may be shown, a keyed hash of the secret, an owner."""

from __future__ import annotations

from sqlalchemy import exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import ApiKey
from repositories.unique import unique_key

USED_EVERY = 60.0
"""Seconds between two notes of a key's use."""


async def any_exists(session: AsyncSession) -> bool:
    """Whether a key was ever made; revoked ones count, so that revoking the last one does not open the doors."""
    return bool((await session.execute(select(exists().select_from(ApiKey)))).scalar_one())


async def valid(session: AsyncSession, key_id: str) -> ApiKey | None:
    """The key, unless it is unknown, revoked or expired."""
    statement = select(ApiKey).where(
        ApiKey.key_id == key_id,
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > after()),
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def create(
    session: AsyncSession, key_id: str, secret_hash: str, owner: str, name: str | None, lifetime: float | None
) -> None:
    """lifetime in seconds, None: for ever. Raises AlreadyExists if the id is taken."""
    with unique_key():
        await session.execute(
            insert(ApiKey).values(
                key_id=key_id,
                secret_hash=secret_hash,
                owner=owner,
                name=name,
                created_at=after(),
                expires_at=None if lifetime is None else after(lifetime),
            )
        )


async def note_use(session: AsyncSession, key_id: str) -> None:
    await session.execute(
        update(ApiKey)
        .where(ApiKey.key_id == key_id, or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < after(-USED_EVERY)))
        .values(last_used_at=after())
        .execution_options(synchronize_session=False)
    )


async def revoke(session: AsyncSession, key_id: str) -> bool:
    """False: there is no such key, or it was revoked before."""
    statement = (
        update(ApiKey)
        .where(ApiKey.key_id == key_id, ApiKey.revoked_at.is_(None))
        .values(revoked_at=after())
        .returning(ApiKey.key_id)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


async def everything(session: AsyncSession) -> list[ApiKey]:
    return list((await session.execute(select(ApiKey).order_by(ApiKey.created_at, ApiKey.key_id))).scalars())
