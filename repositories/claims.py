"""Claims: one run of one row at a time, on any number of machines.

A claim is a lease: it holds the row until `due_at`, which its holder keeps renewing (`repositories/leases.py`).
The lock order is job, then chunks, everywhere.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from core.domain import keys
from core.domain.job import OPEN, JobStatus
from core.domain.spans import Span
from repositories import intents, transitions
from repositories.models import Chunk, Job
from repositories.state_machine import Table, apply

WORKING_LIFETIME = 3600.0
"""Seconds after which working audio without a plan is collected: Prepare takes up to 25 min, plus 10 in an outage."""
MAX_LOST = 5
"""Lost runs that a row may have; with one more it fails with WORKER_CRASH."""
SUSPECT = 2
"""Lost runs from which a row runs alone: if it kills its consumer, no other work is lost."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Parameters of one claim. Use the same object again if the response of the COMMIT was lost.

    lease: seconds until the claim lapses unless it is renewed. alone: no other row runs in this consumer meanwhile.
    token: distinguishes the claims of one worker.
    """

    worker: str
    lease: float
    alone: bool = True
    token: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def holder(self) -> str:
        return f"{self.worker}/{self.token}"


@dataclass(frozen=True, slots=True)
class Claim:
    """One run of one row. Renewal, failure and hand-back apply only while the row still carries it."""

    job_id: str
    worker: str
    holder: str
    number: int
    failures: int
    lost: int
    chunk_index: int | None = None

    @property
    def table(self) -> Table:
        """Table of the claimed row."""
        return Job if self.chunk_index is None else Chunk

    def row(self) -> ColumnElement[bool]:
        """Return the condition that a row is the claimed one, regardless of its present holder."""
        if self.chunk_index is None:
            return Job.job_id == self.job_id
        return and_(Chunk.job_id == self.job_id, Chunk.chunk_index == self.chunk_index)

    def fence(self) -> ColumnElement[bool]:
        """Return the condition that the row still carries this claim."""
        return and_(self.row(), self.table.claim == self.number, self.table.holder == self.holder)


@dataclass(frozen=True, slots=True)
class ClaimedChunk:
    """A claimed chunk: the samples it covers, the error code of its last attempt, and its job.

    audio_path: object with its samples; audio_start: the object's first sample of the recording.
    """

    claim: Claim
    plan: int
    spans: tuple[Span, ...]
    last_error: str | None
    job: Job
    crc32: int | None = None
    audio_path: str | None = None
    audio_start: int = 0


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A row whose wake-up may be published now. chunk_index: None for the job's own row."""

    job_id: str
    chunk_index: int | None
    failures: int


async def claim_chunk(
    session: AsyncSession, job_id: str, chunk_index: int, failures: int, request: ClaimRequest
) -> ClaimedChunk | None:
    """Claim the chunk; return None if it is held or done, its job is not running, or it may only run alone."""
    # the lock blocks a cancel from committing between reading the job and claiming its chunk
    running = select(Job).where(Job.job_id == job_id, Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None))
    job = (await session.execute(running.with_for_update(read=True))).scalar_one_or_none()
    if job is None:
        return None
    statement = (
        transitions.claimed(Chunk, request.worker, request.holder, request.lease)
        .where(Chunk.job_id == job_id, Chunk.chunk_index == chunk_index, Chunk.failures == failures)
        .where(_claimable(Chunk, request))
        .returning(Chunk.claim, Chunk.failures, Chunk.lost, Chunk.plan, Chunk.spans, Chunk.error_code)
        .returning(Chunk.crc32, Chunk.audio_path, Chunk.audio_start)
    )
    row = (await apply(session, statement)).first()
    if row is None:
        return None
    claim = Claim(job_id, request.worker, request.holder, row.claim, row.failures, row.lost, chunk_index)
    return ClaimedChunk(
        claim,
        row.plan,
        tuple(Span(*pair) for pair in row.spans),
        row.error_code,
        job,
        row.crc32,
        row.audio_path or job.working_audio_path,
        row.audio_start,
    )


def _claimable(table: Table, request: ClaimRequest) -> ColumnElement[bool]:
    """Return the condition that a row is free, or held by an earlier attempt of the same request."""
    free = or_(table.holder.is_(None), table.holder == request.holder)
    return free if request.alone else and_(free, table.lost < SUSPECT)


def unfetched() -> ColumnElement[bool]:
    """Return the condition that the job's recording is still to be fetched from its URL."""
    return and_(Job.chunks_total.is_(None), Job.minio_audio_path.is_(None), Job.media_url.is_not(None))


def unprepared() -> ColumnElement[bool]:
    """Return the condition that the job's recording is in storage and the job has no plan, or an open one."""
    return and_(Job.chunks_total.is_(None), or_(Job.minio_audio_path.is_not(None), Job.media_url.is_(None)))


async def claim_fetch(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest
) -> tuple[Claim, Job] | None:
    """Claim a job whose recording is to be fetched. `admission.claim_fetch` enforces the owner's limit."""
    return await _claim_job(session, job_id, failures, unfetched(), request)


async def claim_prepare(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest
) -> tuple[Claim, Job] | None:
    """Claim a job that has no plan yet, or an open one. `admission.claim_prepare` enforces the owner's limit.

    Create an intent for the working audio of this run, so that it is collected if the run is killed.
    """
    claimed = await _claim_job(session, job_id, failures, unprepared(), request)
    if claimed is not None:
        await intents.create(session, keys.working_key(job_id, claimed[0].number), job_id, WORKING_LIFETIME)
    return claimed


async def claim_finalise(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest
) -> tuple[Claim, Job] | None:
    """Claim a job whose chunks are all completed."""
    done = and_(Job.chunks_completed == Job.chunks_total, Job.status == JobStatus.PROCESSING)
    return await _claim_job(session, job_id, failures, done, request)


async def _claim_job(
    session: AsyncSession, job_id: str, failures: int, step: ColumnElement[bool], request: ClaimRequest
) -> tuple[Claim, Job] | None:
    statement = (
        transitions.claimed(Job, request.worker, request.holder, request.lease)
        .where(Job.job_id == job_id, Job.failures == failures, step, _claimable(Job, request))
        .returning(Job.claim, Job.failures, Job.lost)
    )
    row = (await apply(session, statement)).first()
    if row is None:
        return None
    job = (await session.execute(select(Job).where(Job.job_id == job_id))).scalar_one()
    return Claim(job_id, request.worker, request.holder, row.claim, row.failures, row.lost), job


async def is_suspect(session: AsyncSession, job_id: str, chunk_index: int | None) -> bool:
    """Return True if the row is free and has lost so many runs that it may only run alone."""
    table: Table = Job if chunk_index is None else Chunk
    free = (table.status.in_(OPEN), table.holder.is_(None))
    statement = select(table.job_id).where(table.job_id == job_id, *free, table.lost >= SUSPECT)
    if chunk_index is not None:
        statement = statement.where(Chunk.chunk_index == chunk_index)
    return (await session.execute(statement)).first() is not None
