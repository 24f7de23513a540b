"""Jobs: creation, lookups and lists, for the API and the steps.

Queries made for a request are restricted to its owner.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVarTuple

from sqlalchemy import Select, func, insert, literal, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from core.database import UtcDateTime, after
from core.domain.job import OPEN, TERMINAL, JobStatus, Priority, job_band
from core.domain.job_options import JobOptions
from core.domain.transcript import ChunkTranscript, Segment
from repositories import quotas, transitions
from repositories.claims import WakeUp, unfetched
from repositories.models import Chunk, Job, JobId, UploadIntent
from repositories.state_machine import apply
from repositories.unique import unique_key


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be created. audio_key: object with the recording, None if it is to be fetched; file_size: bytes.

    asked_model: the name in the request, empty if it had none; model: the live workers' model chosen for it.
    """

    job_id: str
    owner: str
    language: str
    model: str | None
    priority: Priority
    options: JobOptions
    original_filename: str | None
    audio_key: str | None
    file_size: int
    request_id: str | None = None
    media_url: str | None = None
    callback_url: str | None = None
    client_metadata: dict[str, Any] | None = None
    asked_model: str = ""


async def create(session: AsyncSession, new: NewJob) -> Job:
    """Insert the job, due for its first publish.

    Raises AlreadyExists if the owner has used the request_id.
    """
    band = job_band(await quotas.count_open(session, new.owner))
    with unique_key():
        await session.execute(
            insert(Job).values(
                job_id=new.job_id,
                owner=new.owner,
                request_id=new.request_id,
                language=new.language,
                model=new.model,
                asked_model=new.asked_model,
                priority=new.priority,
                band=band,
                options=new.options,
                original_filename=new.original_filename,
                media_url=new.media_url,
                callback_url=new.callback_url,
                client_metadata=new.client_metadata,
                minio_audio_path=new.audio_key,
                file_size_mb=new.file_size / 1024 / 1024,
                **transitions.created.values(Job),
            )
        )
    return (await session.execute(select(Job).where(Job.job_id == new.job_id))).scalar_one()


async def get(session: AsyncSession, job_id: str, owner: str | None = None, *, with_text: bool = False) -> Job | None:
    """Return the job; None if it is unknown, deleted or another owner's. owner: None for internal use, any owner."""
    statement = select(Job).where(Job.job_id == job_id, Job.deleted_at.is_(None))
    if owner is not None:
        statement = statement.where(Job.owner == owner)
    if with_text:
        statement = statement.options(undefer(Job.transcription_text))
    return (await session.execute(statement)).scalar_one_or_none()


async def get_many(session: AsyncSession, job_ids: Collection[str]) -> dict[str, Job]:
    """Return the jobs with these ids, without deleted ones, by id."""
    statement = select(Job).where(Job.job_id.in_(job_ids), Job.deleted_at.is_(None))
    return {job.job_id: job for job in (await session.execute(statement)).scalars()}


async def list_transcripts(
    session: AsyncSession, job_id: str, only: Collection[int] | None = None
) -> list[ChunkTranscript]:
    """Return the transcripts of completed chunks, only of those in `only` if given, in order of the recording."""
    columns = (Chunk.chunk_index, Chunk.start_time, Chunk.end_time, Chunk.transcription, Chunk.overlap)
    statement = (
        select(*columns, Chunk.attempts, Chunk.seconds, Chunk.engine)
        .where(Chunk.job_id == job_id, Chunk.status == JobStatus.COMPLETED)
        .order_by(Chunk.chunk_index)
    )
    if only is not None:
        statement = statement.where(Chunk.chunk_index.in_(only))
    return [
        ChunkTranscript(
            row.chunk_index,
            row.start_time,
            row.end_time,
            tuple(Segment.from_json(segment) for segment in row.transcription or ()),
            row.overlap,
            row.attempts,
            row.seconds or 0.0,
            row.engine or "",
        )
        for row in (await session.execute(statement)).all()
    ]


@dataclass(frozen=True, slots=True)
class Failure:
    """Failure of a job. chunk_index: None for a step of the job itself; first: time of the first failed attempt."""

    chunk_index: int | None
    attempts: int
    first: datetime | None


async def get_failure(session: AsyncSession, job_id: str) -> Failure:
    """Return the failure of a job; 0 attempts if the job is unknown."""
    columns = (Chunk.chunk_index, Chunk.failures, Chunk.first_failed_at)
    statement = select(*columns).where(Chunk.job_id == job_id, Chunk.status == JobStatus.FAILED)
    chunk = (await session.execute(statement.order_by(Chunk.chunk_index).limit(1))).first()
    if chunk is not None:
        return Failure(*chunk)
    job = (await session.execute(select(Job.failures, Job.first_failed_at).where(Job.job_id == job_id))).first()
    return Failure(None, job.failures + 1, job.first_failed_at) if job else Failure(None, 0, None)


async def last_committed_at(session: AsyncSession, job_id: str) -> datetime | None:
    """Return the time of the last commit of a chunk, which makes the result's timestamp reproducible."""
    statement = select(func.max(Chunk.processed_at)).where(Chunk.job_id == job_id)
    return (await session.execute(statement)).scalar_one()


async def get_by_request_id(
    session: AsyncSession, owner: str, request_id: str, ttl: float, *, with_text: bool = False
) -> Job | None:
    """Return the owner's job of this request_id, until `ttl` seconds after its end (0: no limit)."""
    statement = select(Job).where(Job.owner == owner, Job.request_id == request_id, Job.deleted_at.is_(None))
    if ttl:
        statement = statement.where(or_(Job.completed_at.is_(None), Job.completed_at > after(-ttl)))
    if with_text:
        statement = statement.options(undefer(Job.transcription_text))
    return (await session.execute(statement)).scalar_one_or_none()


async def release_request_id(session: AsyncSession, owner: str, request_id: str, ttl: float) -> None:
    """Free the request_id if its job ended over `ttl` seconds ago (0: never). The job itself stays."""
    if not ttl:
        return
    ended = (Job.owner == owner, Job.request_id == request_id, Job.completed_at <= after(-ttl))
    await apply(session, update(Job).where(*ended).values(request_id=None, updated_at=after()))


async def is_unfetched(session: AsyncSession, job_id: str) -> bool:
    """Return True if the job is open, held by no claim, and its recording is still to be fetched."""
    free = (Job.job_id == job_id, Job.status.in_(OPEN), Job.deleted_at.is_(None), Job.holder.is_(None))
    return (await session.execute(select(Job.job_id).where(*free, unfetched()))).first() is not None


async def store_source(session: AsyncSession, job_id: str, key: str, size: int, seconds: float) -> WakeUp | None:
    """Record a fetched recording and release its Prepare; return None if it is already recorded.

    size: bytes; seconds: time that the fetch took.
    """
    statement = (
        transitions.fetched(Job)
        .where(Job.job_id == job_id, Job.minio_audio_path.is_(None))
        .values(minio_audio_path=key, file_size_mb=size / 1024 / 1024, download_seconds=seconds)
        .returning(Job.failures)
    )
    row = (await apply(session, statement)).first()
    return None if row is None else WakeUp(job_id, None, row.failures)


Columns = TypeVarTuple("Columns")
SEARCHED = 1000
"""Number of jobs among which one page searches a name."""


@dataclass(frozen=True, slots=True)
class Page:
    """Parameters of one page of a list. before: creation time and id of the last job on the previous page.

    name: part of the file name. Its case is ignored; by SQLite only that of ASCII letters.
    """

    limit: int
    status: str | None = None
    language: str | None = None
    before: tuple[datetime, str] | None = None
    name: str | None = None


async def list_page(session: AsyncSession, owner: str, page: Page) -> list[Job]:
    """Return the owner's jobs, newest first; one more than the limit if there is a next page.

    A name is searched among SEARCHED jobs, see `end_of_search`.
    """
    if page.name is None:
        return list((await session.execute(_newest(select(Job), owner, page).limit(page.limit + 1))).scalars())
    columns: Any = select(Job.job_id, Job.original_filename, Job.created_at)
    searched = _newest(columns, owner, page).limit(SEARCHED).subquery()
    found = (
        select(searched.c.job_id)
        .where(searched.c.original_filename.icontains(page.name, autoescape=True))
        .order_by(searched.c.created_at.desc(), searched.c.job_id.desc())
        .limit(page.limit + 1)
    )
    job_ids = list((await session.execute(found)).scalars())
    by_id = await get_many(session, job_ids)
    return [by_id[job_id] for job_id in job_ids if job_id in by_id]


async def end_of_search(session: AsyncSession, owner: str, page: Page) -> tuple[datetime, str] | None:
    """Return creation time and id of the last job among which a page's name is searched; None if it is the oldest."""
    columns: Any = select(Job.created_at, Job.job_id)
    row = (await session.execute(_newest(columns, owner, page).offset(SEARCHED - 1).limit(1))).first()
    return None if row is None else (row[0], row[1])


def _newest(statement: Select[*Columns], owner: str, page: Page) -> Select[*Columns]:
    statement = statement.where(Job.owner == owner, Job.deleted_at.is_(None))
    if page.status is not None:
        statement = statement.where(Job.status == page.status)
    if page.language is not None:
        statement = statement.where(Job.language == page.language)
    if page.before is not None:
        created_at, job_id = page.before
        last_position = tuple_(literal(created_at, UtcDateTime()), literal(job_id, JobId))
        statement = statement.where(tuple_(Job.created_at, Job.job_id) < last_position)
    return statement.order_by(Job.created_at.desc(), Job.job_id.desc())


async def references_object(session: AsyncSession, key: str) -> bool:
    """Return True if the job of the object's intent is not deleted and was created from this object."""
    statement = (
        select(Job.job_id)
        .join(UploadIntent, UploadIntent.job_id == Job.job_id)
        .where(UploadIntent.key == key, Job.minio_audio_path == key, Job.deleted_at.is_(None))
    )
    return (await session.execute(statement)).first() is not None


async def list_states(session: AsyncSession, job_ids: Collection[str]) -> dict[str, tuple[int, bool]]:
    """Return by job its event number, and True if it has ended or is deleted. Unknown jobs are left out."""
    statement = select(Job.job_id, Job.event_seq, Job.status, Job.deleted_at).where(Job.job_id.in_(job_ids))
    rows = (await session.execute(statement)).all()
    return {row.job_id: (row.event_seq, row.status in TERMINAL or row.deleted_at is not None) for row in rows}


async def list_chunk_progress(
    session: AsyncSession, job_id: str, newer_than: int = -1, known: int = 0
) -> list[tuple[int, int, float, bool]]:
    """Return each chunk's index, event number, overlap with the chunk before it (seconds), and True if completed.

    newer_than, known: only chunks with a greater event number, and those with an index of at least `known`.
    """
    columns = (Chunk.chunk_index, Chunk.event_seq, Chunk.overlap, Chunk.status)
    changed = or_(Chunk.event_seq > newer_than, Chunk.chunk_index >= known)
    statement = select(*columns).where(Chunk.job_id == job_id, changed).order_by(Chunk.chunk_index)
    rows = await session.execute(statement)
    return [(row[0], row[1], row[2], row[3] == JobStatus.COMPLETED) for row in rows.all()]
