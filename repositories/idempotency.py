"""Idempotency keys: the first answer to a submit, kept for a day, written in the transaction that makes the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import Idempotency
from repositories.unique import unique_key

LIFETIME = 86_400.0
"""Seconds a key is remembered."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """request_hash: SHA-256 (hex) over the canonical fields and the file's own SHA-256."""

    key: str
    request_hash: str


async def find(session: AsyncSession, owner: str, key: str) -> Idempotency | None:
    statement = select(Idempotency).where(
        Idempotency.owner == owner, Idempotency.key == key, Idempotency.expires_at > after()
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def remember(
    session: AsyncSession, owner: str, request: IdempotentRequest, job_id: str, answer: dict[str, Any]
) -> None:
    """Store the answer under the key. Raises AlreadyExists if the owner has used it."""
    await session.execute(
        delete(Idempotency).where(
            Idempotency.owner == owner, Idempotency.key == request.key, Idempotency.expires_at <= after()
        )
    )
    with unique_key():
        await session.execute(
            insert(Idempotency).values(
                owner=owner,
                key=request.key,
                request_hash=request.request_hash,
                answer=answer,
                job_id=job_id,
                expires_at=after(LIFETIME),
            )
        )


async def forget(session: AsyncSession, owner: str, key: str) -> None:
    await session.execute(delete(Idempotency).where(Idempotency.owner == owner, Idempotency.key == key))


async def forget_expired(session: AsyncSession) -> None:
    await session.execute(delete(Idempotency).where(Idempotency.expires_at <= after()))
