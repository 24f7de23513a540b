"""Claims, commits and hand-backs: the heart (design section 3). Every statement is one that several machines may race.

A claim is a lease: it holds the row until `due_at`, which its holder keeps moving (`repositories/leases.py`).
Success needs no fence: the first commit wins. Failure and hand-back apply only to the claim they belong to.
Lock order is job, then chunks, everywhere.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, func, insert, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain import keys
from core.domain.job import OPEN, JobStatus
from core.domain.spans import Span
from repositories import intents, webhooks
from repositories.models import Chunk, Job, Metric

RELEASE_DELAY = 10.0
"""Seconds a released row waits for its publish to be confirmed before the scheduler publishes it."""
RETRY_MARGIN = 60.0
"""Seconds past a retry's delay before the scheduler publishes it again."""
FIRST_RELEASE = 64
"""Chunks that Prepare releases; each completion releases one more."""
WORKING_LIFETIME = 3600.0
"""Seconds after which working audio that got no plan is collected: a Prepare takes 25 min, an outage in it 10 min."""
WORKING_GRACE = 60.0
"""Seconds that whoever completed a job has to delete its working audio himself."""
MAX_LOST = 5
"""Runs that may end without a word before the row fails with WORKER_CRASH."""
SUSPECT = 2
"""Lost runs after which a row runs alone, so that what kills its consumer takes nobody else's work with it."""


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """Parameters of one claim, which may be repeated with the same object where the answer of its COMMIT was lost.

    lease: seconds until the claim lapses unless it is renewed. alone: nothing else runs beside it in this consumer.
    token: tells this claim from any other of the same worker.
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
    """Names one run of one row: renewal, failure and hand-back apply only to the row that still carries it."""

    job_id: str
    worker: str
    holder: str
    number: int
    failures: int
    lost: int
    chunk_index: int | None = None


@dataclass(frozen=True, slots=True)
class ClaimedChunk:
    claim: Claim
    plan: int
    spans: tuple[Span, ...]
    last_error: str | None
    job: Job
    crc32: int | None = None


@dataclass(frozen=True, slots=True)
class WakeUp:
    """A row that may be published now."""

    job_id: str
    chunk_index: int | None
    failures: int


@dataclass(frozen=True, slots=True)
class Committed:
    """What a chunk's commit released: more chunks, or (`finalise`) the job's last step."""

    event_seq: int
    chunks_completed: int
    chunks_total: int
    finalise: bool
    released: tuple[WakeUp, ...]


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """What a finished chunk writes: segments as JSON in recording time, seconds it took, the language heard."""

    segments: list[dict[str, Any]]
    seconds: float
    language: str
    metrics: dict[str, float]


def _takeable(row: type[Job] | type[Chunk], request: ClaimRequest) -> ColumnElement[bool]:
    """The row is free, or this very claim took it and is being repeated. Only the scheduler ends somebody's lease."""
    free = or_(row.holder.is_(None), row.holder == request.holder)
    return free if request.alone else and_(free, row.lost < SUSPECT)


def _claimed(row: type[Job] | type[Chunk], request: ClaimRequest) -> dict[str, Any]:
    return {
        "holder": request.holder,
        "worker_id": request.worker,
        "claim": row.claim + 1,
        "claimed_at": after(),
        "due_at": after(request.lease),
        "updated_at": after(),
    }


async def claim_chunk(
    session: AsyncSession, job_id: str, chunk_index: int, failures: int, request: ClaimRequest
) -> ClaimedChunk | None:
    """Take the chunk; None: somebody else has it, there is nothing to do, or it is suspect and may only run alone."""
    # the lock holds off a cancel that would otherwise commit between the look at the job and the claim of its chunk
    running = select(Job).where(Job.job_id == job_id, Job.status == JobStatus.PROCESSING, Job.deleted_at.is_(None))
    job = (await session.execute(running.with_for_update(read=True))).scalar_one_or_none()
    if job is None:
        return None
    statement = (
        update(Chunk)
        .where(
            Chunk.job_id == job_id,
            Chunk.chunk_index == chunk_index,
            Chunk.failures == failures,
            Chunk.status.in_(OPEN),
            _takeable(Chunk, request),
        )
        .values(status=JobStatus.PROCESSING, attempts=Chunk.attempts + 1, **_claimed(Chunk, request))
        .returning(Chunk.claim, Chunk.failures, Chunk.lost, Chunk.plan, Chunk.spans, Chunk.error_code, Chunk.crc32)
        .execution_options(synchronize_session=False)
    )
    row = (await session.execute(statement)).first()
    if row is None:
        return None
    claim = Claim(job_id, request.worker, request.holder, row.claim, row.failures, row.lost, chunk_index)
    return ClaimedChunk(claim, row.plan, tuple(Span(*pair) for pair in row.spans), row.error_code, job, row.crc32)


def unfetched() -> ColumnElement[bool]:
    """The recording is still at its sender's address."""
    return and_(Job.chunks_total.is_(None), Job.minio_audio_path.is_(None), Job.media_url.is_not(None))


def unprepared() -> ColumnElement[bool]:
    """The recording has no plan, and needs not be fetched."""
    return and_(Job.chunks_total.is_(None), or_(Job.minio_audio_path.is_not(None), Job.media_url.is_(None)))


async def claim_fetch(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest
) -> tuple[Claim, Job] | None:
    """Take a job whose recording is to be fetched. `admission.claim_fetch` keeps its owner's limit."""
    return await _claim_job(session, job_id, failures, unfetched(), request)


async def claim_prepare(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest
) -> tuple[Claim, Job] | None:
    """Take a job that has no plan yet. `admission.claim_prepare` keeps its owner's limit.

    An intent notes the working audio that this run will write, so that a killed one leaves nothing for ever.
    """
    taken = await _claim_job(session, job_id, failures, unprepared(), request)
    if taken is not None:
        await intents.note(session, keys.working_key(job_id, taken[0].number), job_id, WORKING_LIFETIME)
    return taken


async def claim_finalise(
    session: AsyncSession, job_id: str, failures: int, request: ClaimRequest
) -> tuple[Claim, Job] | None:
    """Take a job whose chunks are all done."""
    done = and_(Job.chunks_completed == Job.chunks_total, Job.status == JobStatus.PROCESSING)
    return await _claim_job(session, job_id, failures, done, request)


async def is_suspect(session: AsyncSession, job_id: str, chunk_index: int | None) -> bool:
    """The row is free, and has lost so many consumers that a claim beside other work passes it over."""
    row: type[Job] | type[Chunk] = Job if chunk_index is None else Chunk
    mine = (row.job_id == job_id,) if chunk_index is None else (row.job_id == job_id, Chunk.chunk_index == chunk_index)
    free = (row.status.in_(OPEN), row.holder.is_(None))
    statement = select(row.job_id).where(*mine, *free, row.lost >= SUSPECT)
    return (await session.execute(statement)).first() is not None


async def _claim_job(
    session: AsyncSession, job_id: str, failures: int, step: ColumnElement[bool], request: ClaimRequest
) -> tuple[Claim, Job] | None:
    statement = (
        update(Job)
        .where(
            Job.job_id == job_id,
            Job.failures == failures,
            Job.status.in_(OPEN),
            Job.deleted_at.is_(None),
            step,
            _takeable(Job, request),
        )
        .values(put_off_at=None, started_at=func.coalesce(Job.started_at, after()), **_claimed(Job, request))
        .returning(Job.claim, Job.failures, Job.lost)
        .execution_options(synchronize_session=False)
    )
    row = (await session.execute(statement)).first()
    if row is None:
        return None
    job = (await session.execute(select(Job).where(Job.job_id == job_id))).scalar_one()
    return Claim(job_id, request.worker, request.holder, row.claim, row.failures, row.lost), job


async def release_chunks(session: AsyncSession, job_id: str, count: int) -> list[WakeUp]:
    """Make the next `count` unreleased chunks due; the caller publishes them after the commit."""
    mine = (Chunk.job_id == job_id, Chunk.status == JobStatus.PENDING, Chunk.due_at.is_(None))
    next_ones = select(Chunk.chunk_index).where(*mine).order_by(Chunk.chunk_index).limit(count)
    statement = (
        update(Chunk)
        .where(Chunk.job_id == job_id, Chunk.chunk_index.in_(next_ones.scalar_subquery()))
        .values(due_at=after(RELEASE_DELAY), publishes=0, updated_at=after())
        .returning(Chunk.chunk_index, Chunk.failures)
        .execution_options(synchronize_session=False)
    )
    rows = (await session.execute(statement)).all()
    return [WakeUp(job_id, row.chunk_index, row.failures) for row in sorted(rows)]


async def commit_chunk(
    session: AsyncSession, claimed: ClaimedChunk, outcome: ChunkOutcome, *, pin_language: bool
) -> Committed | None:
    """Record a finished chunk, once; None: it was recorded before (the session is rolled back), acknowledge.

    Counting is an increment under the job's row lock, never a recount: `count(*)` under READ COMMITTED loses updates.
    `pin_language`: this chunk decided the language of a job submitted as `auto`.
    """
    job_id, index = claimed.claim.job_id, claimed.claim.chunk_index
    job = (
        await session.execute(
            update(Job)
            .where(Job.job_id == job_id)
            .values(
                chunks_completed=Job.chunks_completed + 1,
                event_seq=Job.event_seq + 1,
                detected_language=func.coalesce(Job.detected_language, outcome.language),
                progressed_at=after(),
                updated_at=after(),
            )
            .returning(Job.event_seq, Job.chunks_completed, Job.chunks_total, Job.status)
            .execution_options(synchronize_session=False)
        )
    ).first()
    if job is None:
        return None
    if not await _complete_row(session, claimed, outcome, job.event_seq):
        await session.rollback()
        return None
    await add_metrics(session, job_id, outcome.metrics)
    running = job.status == JobStatus.PROCESSING
    last = running and job.chunks_completed == job.chunks_total
    released: list[WakeUp] = []
    if last:
        released = [await _release_finalise(session, job_id)]
    elif running:
        released = await release_chunks(session, job_id, FIRST_RELEASE if pin_language else 1)
    assert index is not None
    return Committed(job.event_seq, job.chunks_completed, job.chunks_total, last, tuple(released))


async def _complete_row(session: AsyncSession, claimed: ClaimedChunk, outcome: ChunkOutcome, seq: int) -> bool:
    statement = (
        update(Chunk)
        .where(
            Chunk.job_id == claimed.claim.job_id,
            Chunk.chunk_index == claimed.claim.chunk_index,
            Chunk.plan == claimed.plan,
            Chunk.status != JobStatus.COMPLETED,
        )
        .values(
            status=JobStatus.COMPLETED,
            transcription=outcome.segments,
            seconds=outcome.seconds,
            event_seq=seq,
            holder=None,
            due_at=None,
            error_code=None,
            error_message=None,
            worker_id=claimed.claim.worker,
            processed_at=after(),
            updated_at=after(),
        )
        .returning(Chunk.chunk_index)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


async def _release_finalise(session: AsyncSession, job_id: str) -> WakeUp:
    statement = (
        update(Job)
        .where(Job.job_id == job_id)
        .values(due_at=after(RELEASE_DELAY), publishes=0, holder=None, updated_at=after())
        .returning(Job.failures)
        .execution_options(synchronize_session=False)
    )
    return WakeUp(job_id, None, (await session.execute(statement)).scalar_one())


@dataclass(frozen=True, slots=True)
class Finished:
    """What Finalise writes onto the job's row."""

    result_path: str
    text: str
    confidence: float
    processing_seconds: float
    result_ttl: int
    metrics: dict[str, float]


async def complete_job(session: AsyncSession, job_id: str, done: Finished) -> bool:
    """Mark the job COMPLETED, once; False: it was, or it has ended otherwise.

    Its working audio is noted for collection, in case nobody lives to delete it.
    """
    statement = (
        update(Job)
        .where(
            Job.job_id == job_id,
            Job.status == JobStatus.PROCESSING,
            Job.chunks_completed == Job.chunks_total,
            Job.deleted_at.is_(None),
        )
        .values(
            status=JobStatus.COMPLETED,
            minio_result_path=done.result_path,
            transcription_text=done.text,
            confidence=done.confidence,
            processing_seconds=done.processing_seconds,
            completed_at=after(),
            progressed_at=after(),
            expires_at=after(done.result_ttl) if done.result_ttl else None,
            event_seq=Job.event_seq + 1,
            error_code=None,
            error_message=None,
            error_details=null(),
            holder=None,
            due_at=None,
            updated_at=after(),
        )
        .returning(Job.working_audio_path)
        .execution_options(synchronize_session=False)
    )
    row = (await session.execute(statement)).first()
    if row is None:
        return False
    if row.working_audio_path:
        await intents.note(session, row.working_audio_path, job_id, WORKING_GRACE)
    await webhooks.enqueue(session, job_id, webhooks.COMPLETED)
    await add_metrics(session, job_id, done.metrics)
    return True


async def add_metrics(session: AsyncSession, job_id: str, metrics: dict[str, float]) -> None:
    rows = [{"job_id": job_id, "metric_name": name, "metric_value": value} for name, value in metrics.items()]
    if rows:
        await session.execute(insert(Metric).values(recorded_at=after()), rows)
