"""How a run ends badly, and how a job is taken up again: failed attempts, hand-backs, failed jobs, cancel, reopen."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, func, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from core.errors import ModelMissingError, ObjectDamagedError, SttError
from repositories import model_wait, plans, webhooks, workers
from repositories.claims import FIRST_RELEASE, RELEASE_DELAY, RETRY_MARGIN, Claim, WakeUp, release_chunks
from repositories.models import Chunk, Job


def _fence(row: type[Job] | type[Chunk], claim: Claim) -> tuple[ColumnElement[bool], ...]:
    mine: tuple[ColumnElement[bool], ...] = (
        row.job_id == claim.job_id,
        row.claim == claim.number,
        row.holder == claim.holder,
        row.status.in_(OPEN),
    )
    if row is Chunk:
        mine = (*mine, Chunk.chunk_index == claim.chunk_index)
    return mine


def _row_of(claim: Claim) -> type[Job] | type[Chunk]:
    return Job if claim.chunk_index is None else Chunk


def _waiting(row: type[Job] | type[Chunk], delay: float) -> dict[str, Any]:
    values: dict[str, Any] = {"holder": None, "due_at": after(delay), "publishes": 0, "updated_at": after()}
    return {**values, "status": JobStatus.PENDING} if row is Chunk else values


def _reason(row: type[Job] | type[Chunk], error: SttError) -> dict[str, Any]:
    """The English text is for logs, dead letters and webhooks; readers of a job get theirs from code and details."""
    values: dict[str, Any] = {"error_code": error.code, "error_message": error.message()}
    return {**values, "error_details": error.details or null()} if row is Job else values


async def retry_later(session: AsyncSession, claim: Claim, error: SttError, delay: float) -> int | None:
    """Count a failed attempt; the caller publishes the retry after `delay` seconds.

    Returns the row's new `failures`, or None: the claim is no longer ours, somebody else looks after the row.
    """
    await session.execute(
        update(Job)
        .where(Job.job_id == claim.job_id)
        .values(retry_count=Job.retry_count + 1, updated_at=after())
        .execution_options(synchronize_session=False)
    )
    row = _row_of(claim)
    statement = (
        update(row)
        .where(*_fence(row, claim))
        .values(
            failures=row.failures + 1,
            first_failed_at=func.coalesce(row.first_failed_at, after()),
            **_reason(row, error),
            **_waiting(row, delay + RETRY_MARGIN),
        )
        .returning(row.failures)
        .execution_options(synchronize_session=False)
    )
    failures = (await session.execute(statement)).scalar_one_or_none()
    if failures is None:
        await session.rollback()
    return failures


async def hand_back(session: AsyncSession, claim: Claim, delay: float = RELEASE_DELAY) -> bool:
    """Give the row back uncounted; the scheduler publishes it after `delay` seconds. False: the claim is not ours."""
    row = _row_of(claim)
    statement = (
        update(row)
        .where(*_fence(row, claim))
        .values(**_waiting(row, delay), **({"attempts": Chunk.attempts - 1} if row is Chunk else {}))
        .returning(row.job_id)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


async def fail_job(
    session: AsyncSession, job_id: str, error: SttError, token: str, *, claim: Claim | None = None, ttl: int = 0
) -> bool:
    """End the job as FAILED with a dead letter to publish (`token`); False: it had ended, or the claim is not ours.

    The row stays due until the dead letter's publish is confirmed. Finished chunks stay readable.
    """
    if claim is not None and not await _mark_exhausted(session, claim, error):
        return False
    statement = (
        update(Job)
        .where(Job.job_id == job_id, Job.status.in_(OPEN), Job.deleted_at.is_(None))
        .values(
            status=JobStatus.FAILED,
            **_reason(Job, error),
            replay_token=token,
            due_at=after(RELEASE_DELAY),
            publishes=0,
            completed_at=after(),
            progressed_at=after(),
            expires_at=after(ttl) if ttl else None,
            holder=None,
            event_seq=Job.event_seq + 1,
            updated_at=after(),
        )
        .returning(Job.job_id)
        .execution_options(synchronize_session=False)
    )
    if (await session.execute(statement)).first() is None:
        await session.rollback()
        return False
    await park_chunks(session, job_id)
    await webhooks.enqueue(session, job_id, webhooks.FAILED)
    return True


async def _mark_exhausted(session: AsyncSession, claim: Claim, error: SttError) -> bool:
    """Note the last error on the failing row itself; lock the job first (lock order)."""
    await session.execute(select(Job.job_id).where(Job.job_id == claim.job_id).with_for_update())
    row = _row_of(claim)
    values: dict[str, Any] = {
        **_reason(row, error),
        "first_failed_at": func.coalesce(row.first_failed_at, after()),
        "updated_at": after(),
    }
    if row is Chunk:
        values |= {"failures": Chunk.failures + 1, "status": JobStatus.FAILED, "holder": None, "due_at": None}
    statement = update(row).where(*_fence(row, claim)).values(**values).returning(row.job_id)
    return (await session.execute(statement.execution_options(synchronize_session=False))).first() is not None


async def park_chunks(session: AsyncSession, job_id: str) -> None:
    """No further chunk of an ended job is published or started; those running may still commit, and nothing else."""
    await session.execute(
        update(Chunk)
        .where(Chunk.job_id == job_id, or_(Chunk.due_at.is_not(None), Chunk.holder.is_not(None)))
        .values(
            status=case((Chunk.status == JobStatus.PROCESSING, JobStatus.PENDING.value), else_=Chunk.status),
            holder=None,
            due_at=None,
            updated_at=after(),
        )
        .execution_options(synchronize_session=False)
    )


async def cancel_job(session: AsyncSession, job_id: str, owner: str, ttl: int = 0) -> bool:
    """End an unfinished job as CANCELLED; False: there is none of this owner, or it had ended."""
    statement = (
        update(Job)
        .where(Job.job_id == job_id, Job.owner == owner, Job.status.in_(OPEN), Job.deleted_at.is_(None))
        .values(
            status=JobStatus.CANCELLED,
            cancel_requested_at=after(),
            completed_at=after(),
            progressed_at=after(),
            expires_at=after(ttl) if ttl else None,
            holder=None,
            due_at=None,
            event_seq=Job.event_seq + 1,
            updated_at=after(),
        )
        .returning(Job.job_id)
        .execution_options(synchronize_session=False)
    )
    if (await session.execute(statement)).first() is None:
        return False
    await park_chunks(session, job_id)
    await webhooks.enqueue(session, job_id, webhooks.FAILED)
    return True


async def replay(session: AsyncSession, job_id: str, token: str) -> list[WakeUp] | None:
    """Reopen a FAILED job by its dead letter's token, once; None: a stale copy of the letter."""
    return await _reopen(session, Job.job_id == job_id, Job.status == JobStatus.FAILED, Job.replay_token == token)


async def retry_job(session: AsyncSession, job_id: str, owner: str) -> list[WakeUp] | None:
    """Reopen an owner's FAILED or CANCELLED job for what is missing; None: it is in another state."""
    ended = Job.status.in_((JobStatus.FAILED, JobStatus.CANCELLED))
    return await _reopen(session, Job.job_id == job_id, Job.owner == owner, ended)


async def _reopen(session: AsyncSession, *conditions: ColumnElement[bool]) -> list[WakeUp] | None:
    """Start the job again for what is missing; from its recording where its working audio was lost."""
    before = select(Job.job_id, Job.error_code).where(*conditions, Job.deleted_at.is_(None)).with_for_update()
    ended = (await session.execute(before)).first()
    if ended is None:
        return None
    if await _needs_a_new_plan(session, ended.job_id, ended.error_code):
        await plans.drop(session, ended.job_id)
    statement = (
        update(Job)
        .where(*conditions, Job.deleted_at.is_(None))
        .values(
            status=JobStatus.PENDING,
            replay_token=None,
            error_code=None,
            first_failed_at=None,
            error_message=None,
            model_missing_since=None,
            error_details=null(),
            cancel_requested_at=None,
            completed_at=None,
            expires_at=None,
            failures=0,
            lost=0,
            holder=None,
            publishes=0,
            due_at=after(RELEASE_DELAY),
            boosted_at=None,
            progressed_at=after(),
            event_seq=Job.event_seq + 1,
            updated_at=after(),
        )
        .returning(Job.job_id, Job.chunks_total, Job.chunks_completed)
        .execution_options(synchronize_session=False)
    )
    job = (await session.execute(statement)).first()
    if job is None:
        return None
    if job.chunks_total is None:
        return [WakeUp(job.job_id, None, 0)]
    return await _reopen_chunks(session, job.job_id, missing=job.chunks_completed < job.chunks_total)


async def _needs_a_new_plan(session: AsyncSession, job_id: str, code: str | None) -> bool:
    """The plan's working audio was lost, or its model file is on no worker (any more), or no chunk depends on that."""
    if code == ObjectDamagedError.code:
        return True
    if code != ModelMissingError.code:
        return False
    job = (await session.execute(select(Job).where(Job.job_id == job_id))).scalar_one()
    return job.chunks_total is not None and (
        job.chunks_completed == 0 or not model_wait.had_by(job, await workers.alive(session))
    )


async def _reopen_chunks(session: AsyncSession, job_id: str, *, missing: bool) -> list[WakeUp]:
    """Chunks without a result start anew; where none is missing, the job's Finalise is due."""
    await session.execute(
        update(Job)
        .where(Job.job_id == job_id)
        .values(status=JobStatus.PROCESSING, **({"due_at": None} if missing else {}))
        .execution_options(synchronize_session=False)
    )
    if not missing:
        return [WakeUp(job_id, None, 0)]
    await session.execute(
        update(Chunk)
        .where(Chunk.job_id == job_id, Chunk.status != JobStatus.COMPLETED)
        .values(
            status=JobStatus.PENDING,
            failures=0,
            lost=0,
            holder=None,
            publishes=0,
            due_at=None,
            error_code=None,
            first_failed_at=None,
            error_message=None,
            updated_at=after(),
        )
        .execution_options(synchronize_session=False)
    )
    return await release_chunks(session, job_id, FIRST_RELEASE)
