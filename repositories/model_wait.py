"""Jobs whose model file no live consumer has: since when, and until one has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN
from core.domain.models import choose
from repositories import workers
from repositories.models import Job, Worker


def wanted(job: Job, available: Sequence[str], default: str | None = None) -> str | None:
    """The model that a job without a plan gets of those available: what its submit was answered with, else anew.

    Rows of an older version have no `asked_model`: their `model` is what was asked for.
    """
    if job.model in available:
        return job.model
    asked = job.model if job.asked_model is None else job.asked_model
    return choose(asked, job.language, available, default)


def had_by(job: Job, alive: Iterable[Worker], default: str | None = None) -> bool:
    """Whether one of these workers has the job's model file: the pinned one, or before the plan any that would do.

    A file whose checksum is not announced yet counts as the right one: nothing ends because of a slow disk.
    """
    if job.chunks_total is None:
        return any(wanted(job, worker.models, default) is not None for worker in alive)
    pinned = job.options.file_sha256
    for worker in alive:
        known = (worker.checksums or {}).get(job.model or "")
        if job.model in worker.models and (not pinned or known is None or pinned in known):
            return True
    return False


async def missing_for(session: AsyncSession, job: Job, default: str | None = None) -> float | None:
    """Seconds for which live consumers have been there and none had the job's model file; None: one has it.

    Time without any consumer does not count: the one with the file may be the last of them to start.
    """
    alive = await workers.alive(session)
    mine = update(Job).where(Job.job_id == job.job_id).execution_options(synchronize_session=False)
    if had_by(job, alive, default):
        await session.execute(mine.where(Job.model_missing_since.is_not(None)).values(model_missing_since=None))
        return None
    await session.execute(mine.where(Job.model_missing_since.is_(None)).values(model_missing_since=after()))
    noted = select(Job.model_missing_since, after()).where(Job.job_id == job.job_id)
    since, now = (await session.execute(noted)).one()
    started = min((worker.started_at for worker in alive), default=now)
    return float((now - max(since or now, started)).total_seconds())


async def found(session: AsyncSession, worker: Worker, default: str | None = None) -> None:
    """A consumer has started, or has other files than before: jobs that it can serve are missing nothing."""
    statement = select(Job).where(Job.model_missing_since.is_not(None), Job.status.in_(OPEN))
    served = [job.job_id for job in (await session.execute(statement)).scalars() if had_by(job, [worker], default)]
    if served:
        await session.execute(
            update(Job)
            .where(Job.job_id.in_(served))
            .values(model_missing_since=None)
            .execution_options(synchronize_session=False)
        )
