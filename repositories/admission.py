"""Limits on what one owner may have in work: fetches at once, and sound that is prepared but not yet transcribed.

A row beyond a limit is put off: it stays pending with a late `due_at`, and `wake` makes the owner's next ones due as
soon as there is room. Claims of one owner's rows are serialised, so that two at once do not both pass the last place.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus, Priority
from repositories import claims
from repositories.claims import RELEASE_DELAY, Claim, ClaimRequest, WakeUp, unfetched
from repositories.models import Job

PUT_OFF = 300.0
"""Seconds after which a row that was put off is tried again although nothing woke it."""
WAKE = 4
"""Rows that are made due when an owner has room again."""


async def claim_fetch(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest, most: int
) -> tuple[Claim, Job] | None:
    """Take a job whose recording is to be fetched; put off where its owner has `most` fetches running."""
    job = await _locked(session, job_id)
    if job is None:
        return None
    running = select(func.count()).where(*_others(job), unfetched(), Job.holder.is_not(None))
    if (await session.execute(running)).scalar_one() >= most:
        await _put_off(session, job, failures)
        return None
    return await claims.claim_fetch(session, job_id, failures, request)


async def claim_prepare(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest, most: float
) -> tuple[Claim, Job] | None:
    """Take a job that has no plan yet; put off where its owner has `most` seconds of prepared sound waiting (0: any).

    Sound of lower priority does not count, and where none waits any length passes.
    """
    job = await _locked(session, job_id)
    if job is None:
        return None
    if most and await _prepared(session, job) >= most:
        await _put_off(session, job, failures)
        return None
    return await claims.claim_prepare(session, job_id, failures, request)


async def wake(session: AsyncSession, owner: str, step: ColumnElement[bool], count: int = WAKE) -> list[WakeUp]:
    """Make the owner's next rows of this step due that were put off; the caller publishes them after the commit."""
    rank = case({one.value: one.level for one in Priority}, value=Job.priority)
    waiting = and_(Job.put_off_at.is_not(None), Job.holder.is_(None), Job.status.in_(OPEN), Job.deleted_at.is_(None))
    next_ones = (
        select(Job.job_id)
        .where(Job.owner == owner, waiting, step)
        .order_by(rank.desc(), Job.created_at)
        .limit(count)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(Job)
        .where(Job.job_id.in_(next_ones.scalar_subquery()), waiting)
        .values(put_off_at=None, due_at=after(RELEASE_DELAY), updated_at=after())
        .returning(Job.job_id, Job.failures)
        .execution_options(synchronize_session=False)
    )
    return [WakeUp(row.job_id, None, row.failures) for row in (await session.execute(statement)).all()]


async def owners_put_off(session: AsyncSession, limit: int = 100) -> list[str]:
    """Owners with rows that were put off, the longest waiting first."""
    waiting = (Job.put_off_at.is_not(None), Job.status.in_(OPEN), Job.deleted_at.is_(None))
    statement = select(Job.owner).where(*waiting).group_by(Job.owner).order_by(func.min(Job.put_off_at)).limit(limit)
    return list((await session.execute(statement)).scalars())


@dataclass(frozen=True, slots=True)
class _Owned:
    job_id: str
    owner: str
    priority: str


async def _locked(session: AsyncSession, job_id: str) -> _Owned | None:
    """The job's owner, whose other claims are held off until this transaction ends."""
    row = (await session.execute(select(Job.owner, Job.priority).where(Job.job_id == job_id))).first()
    job = None if row is None else _Owned(job_id, row.owner, row.priority)
    if job is not None and session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:owner, 0))"), {"owner": job.owner})
    return job


def _others(job: _Owned) -> tuple[ColumnElement[bool], ...]:
    return (Job.owner == job.owner, Job.job_id != job.job_id, Job.status.in_(OPEN), Job.deleted_at.is_(None))


async def _prepared(session: AsyncSession, job: _Owned) -> float:
    """Seconds of the owner's sound that has a plan and no result, of this job's priority or a higher one."""
    mine = Priority(job.priority).level
    levels = [one.value for one in Priority if one.level >= mine]
    total = func.coalesce(func.sum(Job.audio_duration_seconds), 0.0)
    running = (Job.status == JobStatus.PROCESSING, Job.chunks_total.is_not(None), Job.priority.in_(levels))
    return (await session.execute(select(total).where(*_others(job), *running))).scalar_one() or 0.0


async def _put_off(session: AsyncSession, job: _Owned, failures: int) -> None:
    await session.execute(
        update(Job)
        .where(Job.job_id == job.job_id, Job.failures == failures, Job.holder.is_(None), Job.status.in_(OPEN))
        .values(
            put_off_at=func.coalesce(Job.put_off_at, after()),
            due_at=after(PUT_OFF),
            updated_at=after(),
        )
        .execution_options(synchronize_session=False)
    )
