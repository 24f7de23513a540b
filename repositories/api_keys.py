"""API keys: a public id, a keyed hash of the secret, and an owner."""

from __future__ import annotations

from sqlalchemy import exists, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import ApiKey
from repositories.state_machine import apply
from repositories.unique import unique_key

USED_EVERY = 60.0
"""Minimum seconds between two records of a key's use."""


async def any_exists(session: AsyncSession) -> bool:
    """Return True if any key was ever created: revoking the last one does not disable authentication."""
    return bool((await session.execute(select(exists().select_from(ApiKey)))).scalar_one())


async def get_valid(session: AsyncSession, key_id: str) -> ApiKey | None:
    """Return the key, or None if it is unknown, revoked or expired."""
    statement = select(ApiKey).where(
        ApiKey.key_id == key_id,
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > after()),
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def create(
    session: AsyncSession, key_id: str, secret_hash: str, owner: str, name: str | None, lifetime: float | None
) -> None:
    """Store a key that expires after `lifetime` seconds (None: never). Raises AlreadyExists if the id is taken."""
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


async def ensure(
    session: AsyncSession, key_id: str, secret_hash: str, owner: str, name: str, *, sqlite: bool
) -> str | None:
    """Store a key without an end unless its id exists. Return the stored hash of its secret.

    Processes that start together may call this at the same time: none of them causes an error in the database's log.
    """
    row = (sqlite_insert if sqlite else postgresql_insert)(ApiKey).values(
        key_id=key_id, secret_hash=secret_hash, owner=owner, name=name, created_at=after()
    )
    await session.execute(row.on_conflict_do_nothing())
    return (await session.execute(select(ApiKey.secret_hash).where(ApiKey.key_id == key_id))).scalar_one_or_none()


async def record_use(session: AsyncSession, key_id: str) -> None:
    """Record that the key was used now, unless its last recorded use is recent."""
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < after(-USED_EVERY))
    await apply(session, update(ApiKey).where(ApiKey.key_id == key_id, stale).values(last_used_at=after()))


async def revoke(session: AsyncSession, key_id: str) -> bool:
    """Revoke the key; return False if it is unknown or already revoked."""
    valid = (ApiKey.key_id == key_id, ApiKey.revoked_at.is_(None))
    statement = update(ApiKey).where(*valid).values(revoked_at=after()).returning(ApiKey.key_id)
    return (await apply(session, statement)).first() is not None


async def list_all(session: AsyncSession) -> list[ApiKey]:
    """Return every key, oldest first."""
    return list((await session.execute(select(ApiKey).order_by(ApiKey.created_at, ApiKey.key_id))).scalars())
