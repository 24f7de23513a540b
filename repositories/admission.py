"""Limits on the work of one owner: fetches at once, and audio that is prepared but not yet transcribed.

A job beyond a limit is put off: it stays PENDING with a late `due_at`, and `admit_next` makes the owner's next jobs
due once there is room. Claims of one owner's jobs are serialised, so that concurrent claims cannot exceed the limit.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from core.domain.job import OPEN, JobStatus, Priority
from repositories import claims, transitions
from repositories.batches import locked
from repositories.claims import Claim, ClaimRequest, WakeUp, unfetched
from repositories.models import Job
from repositories.state_machine import apply

ADMITTED = 4
"""Number of jobs that are made due when an owner has room again."""
SEARCHED = 1000
"""Number of jobs put off that are searched for owners that wait."""


async def claim_fetch(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest, max_running: int
) -> tuple[Claim, Job] | None:
    """Claim a job whose recording is to be fetched; put it off if its owner has `max_running` fetches running.

    Return None if the job was put off or cannot be claimed.
    """
    job = await _lock_owner_of(session, job_id)
    if job is None:
        return None
    running = select(func.count()).where(*_others(job), unfetched(), Job.holder.is_not(None))
    if (await session.execute(running)).scalar_one() >= max_running:
        await _put_off(session, job, failures)
        return None
    return await claims.claim_fetch(session, job_id, failures, request)


async def claim_prepare(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest, max_seconds: float
) -> tuple[Claim, Job] | None:
    """Claim a job that has no plan yet; put it off if its owner has `max_seconds` of prepared audio waiting.

    max_seconds 0: no limit. Audio of lower priority does not count. If none is waiting, a job of any length is claimed.
    An open plan is continued in any case.
    Return None if the job was put off or cannot be claimed.
    """
    job = await _lock_owner_of(session, job_id)
    if job is None:
        return None
    if max_seconds and not job.has_plan and await _prepared_seconds(session, job) >= max_seconds:
        await _put_off(session, job, failures)
        return None
    return await claims.claim_prepare(session, job_id, failures, request)


async def admit_next(
    session: AsyncSession, owner: str, step: ColumnElement[bool], count: int = ADMITTED
) -> list[WakeUp]:
    """Make the owner's next `count` jobs put off at this step due; the caller publishes them after the commit."""
    rank = case({priority.value: priority.level for priority in Priority}, value=Job.priority)
    waiting = and_(transitions.admitted.applies(Job), Job.put_off_at.is_not(None))
    job_ids = (
        select(Job.job_id).where(Job.owner == owner, waiting, step).order_by(rank.desc(), Job.created_at).limit(count)
    )
    statement = (
        transitions.admitted(Job)
        .where(Job.job_id.in_(locked(job_ids)), Job.put_off_at.is_not(None))
        .returning(Job.job_id, Job.failures)
    )
    return [WakeUp(row.job_id, None, row.failures) for row in (await apply(session, statement)).all()]


async def list_waiting_owners(session: AsyncSession, limit: int = 100) -> list[str]:
    """Return owners of jobs that were put off, longest waiting first: those of the SEARCHED jobs put off first.

    Jobs of other owners are tried again at their `due_at`.
    """
    waiting = (Job.put_off_at.is_not(None), Job.status.in_(OPEN), Job.deleted_at.is_(None))
    first = select(Job.owner, Job.put_off_at).where(*waiting).order_by(Job.put_off_at).limit(SEARCHED).subquery()
    owners = select(first.c.owner).group_by(first.c.owner).order_by(func.min(first.c.put_off_at)).limit(limit)
    return list((await session.execute(owners)).scalars())


@dataclass(frozen=True, slots=True)
class _Owned:
    job_id: str
    owner: str
    priority: str
    has_plan: bool


async def _lock_owner_of(session: AsyncSession, job_id: str) -> _Owned | None:
    """Block other claims of the owner's jobs until the transaction ends; return None if the job is unknown."""
    row = (await session.execute(select(Job.owner, Job.priority, Job.plan).where(Job.job_id == job_id))).first()
    if row is None:
        return None
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:owner, 0))"), {"owner": row.owner})
    return _Owned(job_id, row.owner, row.priority, row.plan is not None)


def _others(job: _Owned) -> tuple[ColumnElement[bool], ...]:
    return (Job.owner == job.owner, Job.job_id != job.job_id, Job.status.in_(OPEN), Job.deleted_at.is_(None))


async def _prepared_seconds(session: AsyncSession, job: _Owned) -> float:
    """Return the seconds of the owner's planned and unfinished audio of at least this job's priority."""
    level = Priority(job.priority).level
    priorities = [priority.value for priority in Priority if priority.level >= level]
    total = func.coalesce(func.sum(Job.audio_duration_seconds), 0.0)
    running = (Job.status == JobStatus.PROCESSING, Job.priority.in_(priorities))
    return (await session.execute(select(total).where(*_others(job), *running))).scalar_one() or 0.0


async def _put_off(session: AsyncSession, job: _Owned, failures: int) -> None:
    await apply(session, transitions.put_off(Job).where(Job.job_id == job.job_id, Job.failures == failures))
