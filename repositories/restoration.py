"""Objects that rows name, and the state of jobs after their rows were restored from a backup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.domain import keys
from core.domain.job import OPEN, JobStatus
from repositories import plans, transitions
from repositories.models import Base, Chunk, Job, UploadIntent
from repositories.state_machine import apply
from repositories.table_rows import TRANSIENT


@dataclass(frozen=True, slots=True)
class NamedObject:
    """An object that a row names. needed: the job is incomplete without it."""

    key: str
    job_id: str
    needed: bool


async def list_objects(session: AsyncSession) -> AsyncIterator[NamedObject]:
    """Yield the objects of all jobs that are not deleted, and those of upload links; an object may come twice."""
    columns = (Job.job_id, Job.status, Job.minio_audio_path, Job.minio_result_path, Job.working_audio_path)
    statement = select(*columns).where(Job.deleted_at.is_(None)).execution_options(yield_per=1000)
    async for job_id, status, upload, result, working in await session.stream(statement):
        if upload is not None:
            yield NamedObject(upload, job_id, needed=True)
        if status == JobStatus.COMPLETED:
            yield NamedObject(result or keys.result_key(job_id), job_id, needed=True)
            for key in keys.result_keys(job_id)[1:]:
                yield NamedObject(key, job_id, needed=False)
        elif working is not None:
            yield NamedObject(working, job_id, needed=status in OPEN)
            yield NamedObject(keys.peaks_key(job_id), job_id, needed=False)
    parts = (
        select(Chunk.audio_path, Chunk.job_id, Job.status)
        .join(Job, Job.job_id == Chunk.job_id)
        .where(Chunk.audio_path.is_not(None), Job.deleted_at.is_(None), Job.status != JobStatus.COMPLETED)
        .distinct()
    )
    async for path, job_id, status in await session.stream(parts.execution_options(yield_per=1000)):
        yield NamedObject(path or "", job_id, needed=status in OPEN)
    links = select(UploadIntent.key, UploadIntent.job_id).where(UploadIntent.owner.is_not(None))
    async for key, job_id in await session.stream(links.execution_options(yield_per=1000)):
        yield NamedObject(key, job_id, needed=False)


async def list_newest_objects(session: AsyncSession, limit: int) -> list[str]:
    """Return the keys of up to `limit` objects that the newest jobs need."""
    statement = (
        select(Job.job_id, Job.status, Job.minio_audio_path, Job.minio_result_path)
        .where(Job.deleted_at.is_(None))
        .order_by(Job.created_at.desc())
        .limit(limit)
    )
    keys_of_jobs = []
    for job_id, status, upload, result in await session.execute(statement):
        result = result or keys.result_key(job_id) if status == JobStatus.COMPLETED else None
        keys_of_jobs += [key for key in (upload, result) if key is not None]
    return keys_of_jobs[:limit]


async def still_needed(session: AsyncSession, item: NamedObject) -> bool:
    """Return True if the job still names the object and needs it; False if it was deleted or has gone on."""
    row = (await session.execute(select(Job).where(Job.job_id == item.job_id, Job.deleted_at.is_(None)))).scalar()
    if row is None:
        return False
    if item.key in (row.minio_audio_path, row.minio_result_path):
        return True
    return row.status in OPEN and await plans.uses_audio(session, item.job_id, item.key)


async def forget_transient(session: AsyncSession) -> None:
    """Remove the rows of processes that ran where the backup was made."""
    for known in Base.metadata.sorted_tables:
        if known.name in TRANSIENT:
            await session.execute(delete(known))


async def release_claims(session: AsyncSession) -> None:
    """Make every open row and every dead letter due at once: no claim is held and no message waits any more.

    An interrupted run is not counted against its row.
    """
    await apply(session, transitions.dead_letter_made_due(Job).where(Job.replay_token.is_not(None)))
    for table in (Job, Chunk):
        await apply(session, transitions.handed_back(table, 0.0).where(table.holder.is_not(None)))
        await apply(session, transitions.made_due(table).where(table.due_at.is_not(None)))


async def prepare_again(session: AsyncSession, job_id: str) -> bool:
    """Drop the plan of an open job whose working audio was not in the backup; its recording is prepared again.

    Call it after `release_claims`. Returns False if the job has ended.
    """
    open_job = select(Job.job_id).where(Job.job_id == job_id, Job.status.in_(OPEN), Job.deleted_at.is_(None))
    if (await session.execute(open_job)).first() is None:
        return False
    await plans.drop(session, job_id)
    await apply(session, transitions.made_due(Job).where(Job.job_id == job_id))
    return True


async def remove_job(session: AsyncSession, job_id: str) -> None:
    """Remove a job that was deleted while the backup was made."""
    await apply(session, transitions.deleted(Job).where(Job.job_id == job_id))
    await apply(session, transitions.removed.deletion(Job).where(Job.job_id == job_id))


async def count_jobs(session: AsyncSession) -> tuple[int, int]:
    """Return the number of jobs that are not deleted, and of those the unfinished ones."""
    unfinished = func.count().filter(or_(*(Job.status == status for status in OPEN)))
    row = (await session.execute(select(func.count(), unfinished).where(Job.deleted_at.is_(None)))).one()
    return int(row[0]), int(row[1])
