"""Jobs that wait for a model file which no live consumer has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN
from core.domain.models import choose
from repositories import workers
from repositories.models import Job, Worker
from repositories.state_machine import apply


def choose_for(
    job: Job, available: Sequence[str], default: str | None = None, pending: Collection[str] = ()
) -> str | None:
    """Return the model for a job without a plan: the one chosen at submit if available, otherwise a new choice.

    pending: models that are being installed, see `choose`.

    Rows of older versions have no `asked_model`; their `model` is the requested one.
    """
    if job.model in available:
        return job.model
    requested = job.model if job.asked_model is None else job.asked_model
    return choose(requested, job.language, available, default, pending)


def is_available(job: Job, live: Iterable[Worker], default: str | None = None) -> bool:
    """Return True if one of the workers has the model file of the job's plan, or a suitable one if there is no plan.

    A file whose checksum is not announced yet counts as the right one, so that slow hashing fails no job, and so does
    one that is being downloaded.
    """
    if job.plan is None:
        return any(choose_for(job, worker.models, default, _arriving(worker)) is not None for worker in live)
    pinned = job.options.file_sha256
    for worker in live:
        if job.model in _arriving(worker):
            return True
        checksums = (worker.checksums or {}).get(job.model or "")
        if job.model in worker.models and (not pinned or checksums is None or pinned in checksums):
            return True
    return False


def _arriving(worker: Worker) -> list[str]:
    return [state.name for _, state in workers.model_states([worker]) if state.arriving]


async def seconds_missing(session: AsyncSession, job: Job, default: str | None = None) -> float | None:
    """Return the seconds for which live consumers have lacked the job's model file; None if one has it.

    Time without any live consumer does not count: the one with the file may be the last to start. Sets or clears
    `model_missing_since`.
    """
    live = await workers.list_live(session)
    mark = update(Job).where(Job.job_id == job.job_id)
    if is_available(job, live, default):
        await apply(session, mark.where(Job.model_missing_since.is_not(None)).values(model_missing_since=None))
        return None
    await apply(session, mark.where(Job.model_missing_since.is_(None)).values(model_missing_since=after()))
    marked = select(Job.model_missing_since, after()).where(Job.job_id == job.job_id)
    since, now = (await session.execute(marked)).one()
    started = min((worker.started_at for worker in live), default=now)
    return float((now - max(since or now, started)).total_seconds())


async def mark_available(session: AsyncSession, worker: Worker, default: str | None = None) -> None:
    """Clear `model_missing_since` of the jobs that this worker can run. Call when it starts or its files change."""
    statement = select(Job).where(Job.model_missing_since.is_not(None), Job.status.in_(OPEN))
    missing = (await session.execute(statement)).scalars()
    job_ids = [job.job_id for job in missing if is_available(job, [worker], default)]
    if job_ids:
        await apply(session, update(Job).where(Job.job_id.in_(job_ids)).values(model_missing_since=None))
