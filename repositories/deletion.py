"""Deletion and expiry in two passes: a job is hidden and its objects are removed at once, its rows a day later.

The second pass also removes objects that a paused process wrote in between.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories import transitions
from repositories.batches import locked
from repositories.failures import park_chunks
from repositories.models import Job
from repositories.state_machine import apply

SECOND_PASS = 86_400.0
"""Seconds from the first pass to the second."""
BATCH = 200


async def mark_deleted(session: AsyncSession, job_id: str, owner: str) -> bool:
    """Hide an owner's job, even while it runs; return False if it does not exist."""
    statement = transitions.deleted(Job).where(Job.job_id == job_id, Job.owner == owner).returning(Job.job_id)
    if (await apply(session, statement)).first() is None:
        return False
    await park_chunks(session, job_id)
    return True


async def mark_expired(session: AsyncSession) -> list[str]:
    """Hide up to BATCH ended jobs whose `expires_at` has passed; return their ids. One scheduler hides each."""
    overdue = select(Job.job_id).where(Job.expires_at <= after(), transitions.expired.applies(Job))
    oldest = locked(overdue.order_by(Job.expires_at).limit(BATCH))
    statement = transitions.expired(Job).where(Job.job_id.in_(oldest))
    job_ids = list((await apply(session, statement.returning(Job.job_id))).scalars())
    for job_id in job_ids:
        await park_chunks(session, job_id)
    return job_ids


async def list_purgeable(
    session: AsyncSession, older_than: float = SECOND_PASS, without: Collection[str] = ()
) -> list[str]:
    """Return the ids of jobs hidden over `older_than` seconds ago, oldest first, except those in `without`."""
    due = (Job.deleted_at <= after(-older_than), Job.job_id.not_in(without))
    statement = select(Job.job_id).where(*due).order_by(Job.deleted_at).limit(BATCH)
    return list((await session.execute(statement)).scalars())


async def purge(session: AsyncSession, job_id: str) -> None:
    """Remove a deleted job with its chunks, metrics and webhook deliveries."""
    await apply(session, transitions.removed.deletion(Job).where(Job.job_id == job_id))
