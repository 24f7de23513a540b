"""Deletion and expiry in two passes: a job is hidden and its objects are removed at once, its rows a day later.

The second pass also removes objects that a paused process wrote in between.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain import keys
from core.domain.job import JobStatus
from repositories import intents, transitions
from repositories.batches import locked
from repositories.failures import park_chunks
from repositories.models import Job
from repositories.state_machine import apply

SECOND_PASS = 86_400.0
"""Seconds from the first pass to the second."""
BATCH = 200
RESTORED = {
    JobStatus.COMPLETED: transitions.restored_completed,
    JobStatus.FAILED: transitions.restored_failed,
    JobStatus.CANCELLED: transitions.restored_cancelled,
}


async def mark_deleted(session: AsyncSession, job_id: str, owner: str) -> bool:
    """Hide an owner's job, even while it runs; return False if it does not exist."""
    statement = transitions.deleted(Job).where(Job.job_id == job_id, Job.owner == owner).returning(Job.job_id)
    if (await apply(session, statement)).first() is None:
        return False
    await park_chunks(session, job_id)
    return True


async def keep_objects(session: AsyncSession, job_id: str, seconds: float) -> None:
    """Let the scheduler collect the objects of a deleted job after `seconds`, unless it is restored."""
    for prefix in keys.job_prefixes(job_id):
        await intents.create(session, prefix, job_id, seconds)


async def restore(session: AsyncSession, job_id: str, owner: str) -> bool | None:
    """Undo the deletion of an ended job whose objects are kept; return False if they are not, None if it is unknown.

    Waits for a scheduler that is collecting the objects, which holds the intents' rows.
    """
    row = (await session.execute(select(Job.status).where(Job.job_id == job_id, Job.owner == owner))).first()
    if row is None:
        return None
    kept = [await intents.fulfil(session, prefix) for prefix in keys.job_prefixes(job_id)]
    if not all(kept) or row.status not in RESTORED:
        await session.rollback()
        return False
    same = (Job.job_id == job_id, Job.owner == owner, Job.status == row.status)
    statement = RESTORED[row.status](Job).where(*same).returning(Job.job_id)
    return (await apply(session, statement)).first() is not None


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


async def list_objects(session: AsyncSession, job_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the keys of the objects of those jobs that completed without any interruption.

    Each of their steps was claimed once, so there is nothing else: their working audio had an intent. What interrupted
    steps of other jobs have left is found by listing only.
    """
    steps = case((Job.media_url.is_(None), 2), else_=3)
    plain = (Job.status == JobStatus.COMPLETED, Job.retry_count == 0, Job.lost == 0, Job.claim == steps)
    statement = select(Job.job_id, Job.minio_audio_path).where(Job.job_id.in_(job_ids), *plain)
    return {
        job_id: [*filter(None, [audio]), *keys.result_keys(job_id)]
        for job_id, audio in (await session.execute(statement)).all()
    }


async def purge(session: AsyncSession, job_ids: Collection[str]) -> None:
    """Remove deleted jobs with their chunks, metrics and webhook deliveries."""
    await apply(session, transitions.removed.deletion(Job).where(Job.job_id.in_(job_ids)))
