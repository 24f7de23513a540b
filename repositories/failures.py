"""Runs and jobs that end without a result: failed attempts, hand-backs, failed and cancelled jobs, their retries."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import JobStatus
from core.errors import ModelMissingError, ObjectDamagedError, SttError
from repositories import model_wait, plans, transitions, webhooks, workers
from repositories.claims import Claim, WakeUp
from repositories.models import Chunk, Job, Metric
from repositories.state_machine import apply
from repositories.transitions import RELEASE_DELAY

METRIC = "failed"
"""Metric of each failure of a job, for figures by time."""


async def retry_later(session: AsyncSession, claim: Claim, error: SttError, delay: float) -> int | None:
    """Count a failed attempt; the caller publishes the retry with a delay of `delay` seconds.

    Returns the row's new `failures`, or None if the row no longer carries the claim.
    """
    retries = {"retry_count": Job.retry_count + 1, "updated_at": after()}
    await apply(session, update(Job).where(Job.job_id == claim.job_id).values(retries))
    statement = transitions.retried(claim.table, error, delay).where(claim.fence()).returning(claim.table.failures)
    failures: int | None = (await apply(session, statement)).scalar_one_or_none()
    if failures is None:
        await session.rollback()
    return failures


async def hand_back(session: AsyncSession, claim: Claim, delay: float = RELEASE_DELAY) -> bool:
    """Hand the row back without counting an attempt; the scheduler publishes it after `delay` seconds.

    Returns False if the row no longer carries the claim.
    """
    statement = transitions.handed_back(claim.table, delay).where(claim.fence()).returning(claim.table.job_id)
    return (await apply(session, statement)).first() is not None


async def fail_job(
    session: AsyncSession, job_id: str, error: SttError, token: str, *, claim: Claim | None = None, ttl: int = 0
) -> bool:
    """Mark the job FAILED, with a dead letter to publish under `token`; completed chunks stay readable.

    The row stays due until the dead letter's publish is confirmed. ttl: seconds until the
    job expires, 0 for never. Returns False if the job has ended, or the row no longer carries the claim.
    """
    if claim is not None:
        # lock order: the job before its chunk
        await session.execute(select(Job.job_id).where(Job.job_id == claim.job_id).with_for_update())
        exhausted = transitions.exhausted(claim.table, error).where(claim.fence()).returning(claim.table.job_id)
        if (await apply(session, exhausted)).first() is None:
            return False
    statement = transitions.failed(Job, error, token, ttl).where(Job.job_id == job_id).returning(Job.job_id)
    if (await apply(session, statement)).first() is None:
        await session.rollback()
        return False
    await park_chunks(session, job_id)
    await webhooks.enqueue(session, job_id, webhooks.FAILED)
    failure = insert(Metric).values(job_id=job_id, metric_name=METRIC, metric_value=1.0, recorded_at=after())
    await session.execute(failure)
    return True


async def cancel_job(session: AsyncSession, job_id: str, owner: str, ttl: int = 0) -> bool:
    """Mark an owner's unfinished job CANCELLED; return False if there is none. ttl: as for `fail_job`."""
    statement = transitions.cancelled(Job, ttl).where(Job.job_id == job_id, Job.owner == owner).returning(Job.job_id)
    if (await apply(session, statement)).first() is None:
        return False
    await park_chunks(session, job_id)
    await webhooks.enqueue(session, job_id, webhooks.FAILED)
    return True


async def park_chunks(session: AsyncSession, job_id: str) -> None:
    """Prevent the chunks of an ended job from being published or started; running ones may still commit."""
    due_or_held = or_(Chunk.due_at.is_not(None), Chunk.holder.is_not(None))
    await apply(session, transitions.parked(Chunk).where(Chunk.job_id == job_id, due_or_held))


async def replay(session: AsyncSession, job_id: str, token: str) -> list[WakeUp] | None:
    """Reopen a FAILED job by its dead letter's token, once; return None if the token is stale."""
    return await _reopen(session, Job.job_id == job_id, Job.status == JobStatus.FAILED, Job.replay_token == token)


async def retry_job(session: AsyncSession, job_id: str, owner: str) -> list[WakeUp] | None:
    """Reopen an owner's FAILED or CANCELLED job; return None if it is in another state."""
    return await _reopen(session, Job.job_id == job_id, Job.owner == owner)


async def _reopen(session: AsyncSession, *conditions: ColumnElement[bool]) -> list[WakeUp] | None:
    """Reopen an ended job for its missing chunks, or for a new plan if the present one can no longer be used."""
    columns = (Job.job_id, Job.error_code, Job.chunks_total, Job.chunks_completed, Job.plan)
    ended = select(*columns).where(*conditions, transitions.reopened.applies(Job)).with_for_update()
    job = (await session.execute(ended)).first()
    if job is None:
        return None
    planned = job.chunks_total is not None
    if await _needs_a_new_plan(session, job):
        await plans.drop(session, job.job_id)
        planned = False
    finalise = planned and job.chunks_completed == job.chunks_total
    statement = transitions.resumed(Job, finalise=finalise) if planned else transitions.reopened(Job)
    await apply(session, statement.where(Job.job_id == job.job_id))
    if finalise or not planned:
        return [WakeUp(job.job_id, None, 0)]
    await apply(session, transitions.reopened(Chunk).where(Chunk.job_id == job.job_id))
    return await plans.release_chunks(session, job.job_id, plans.FIRST_RELEASE)


async def _needs_a_new_plan(session: AsyncSession, ended: Row[str, str | None, int | None, int, int | None]) -> bool:
    """Return True if the plan is still open, the working audio is damaged, or the plan's model is missing.

    Completed chunks are kept only if a live worker has the model again: a transcript never mixes two models.
    """
    if ended.chunks_total is None:
        return ended.plan is not None
    if ended.error_code == ObjectDamagedError.code:
        return True
    if ended.error_code != ModelMissingError.code:
        return False
    if ended.chunks_completed == 0:
        return True
    job = (await session.execute(select(Job).where(Job.job_id == ended.job_id))).scalar_one()
    session.expunge(job)  # the caller may load the job again in this session and must see the new values
    return not model_wait.is_available(job, await workers.list_live(session))
