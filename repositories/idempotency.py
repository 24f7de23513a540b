"""Idempotency keys: the first answer to a submit, stored for a day, in the transaction that creates the job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import Idempotency
from repositories.state_machine import apply
from repositories.unique import unique_key

LIFETIME = 86_400.0
"""Seconds after which a key may be used again."""


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A submit with an idempotency key. request_hash: SHA-256 (hex) of its fields and its file's hash."""

    key: str
    request_hash: str


async def find(session: AsyncSession, owner: str, key: str) -> Idempotency | None:
    """Return the answer stored under the owner's key; None if there is none or it has expired."""
    statement = select(Idempotency).where(
        Idempotency.owner == owner, Idempotency.key == key, Idempotency.expires_at > after()
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def store(
    session: AsyncSession, owner: str, request: IdempotentRequest, job_id: str, answer: dict[str, Any]
) -> None:
    """Store the answer under the key. Raises AlreadyExists if the owner has used it."""
    same_key = (Idempotency.owner == owner, Idempotency.key == request.key)
    await apply(session, delete_rows(Idempotency).where(*same_key, Idempotency.expires_at <= after()))
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


async def delete(session: AsyncSession, owner: str, key: str) -> None:
    """Delete the answer, so that the key may be used again."""
    await apply(session, delete_rows(Idempotency).where(Idempotency.owner == owner, Idempotency.key == key))


async def delete_expired(session: AsyncSession) -> None:
    """Delete the answers that have expired."""
    await apply(session, delete_rows(Idempotency).where(Idempotency.expires_at <= after()))
