"""Commits of finished chunks and jobs. A success needs no fence: the first commit wins, whatever its claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import JobStatus
from repositories import intents, transitions, webhooks
from repositories.claims import ClaimedChunk, WakeUp
from repositories.models import Chunk, Job, Metric
from repositories.plans import FIRST_RELEASE, WORKING_GRACE, list_audio, release_chunks
from repositories.state_machine import apply


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """Result of a chunk: segments as JSON with times in the recording, seconds it took, detected language, metrics.

    engine: description of the engine that made it.
    """

    segments: list[dict[str, Any]]
    seconds: float
    language: str
    metrics: dict[str, float]
    engine: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """Effect of a chunk's commit. wake_ups: the next chunks, or the job's Finalise if `finalise`.

    chunks_total: None while the plan is open.
    """

    event_seq: int
    chunks_completed: int
    chunks_total: int | None
    finalise: bool
    wake_ups: tuple[WakeUp, ...]


async def commit_chunk(
    session: AsyncSession, claimed: ClaimedChunk, outcome: ChunkOutcome, *, pin_language: bool
) -> Committed | None:
    """Record a finished chunk once; return None and roll back if it is already recorded or its plan was replaced.

    The count is incremented under the job's row lock: `count(*)` under READ COMMITTED would miss concurrent commits.
    pin_language: this chunk determines the language of a job submitted as `auto`.
    """
    claim = claimed.claim
    counted = (
        transitions.counted(Job, outcome.language)
        .where(Job.job_id == claim.job_id)
        .returning(Job.event_seq, Job.chunks_completed, Job.chunks_total, Job.status, Job.deleted_at)
    )
    job = (await apply(session, counted)).first()
    if job is None:
        return None
    committed = (
        transitions.committed(Chunk, claim.worker, job.event_seq)
        .where(claim.row(), Chunk.plan == claimed.plan)
        .values(transcription=outcome.segments, seconds=outcome.seconds, engine=outcome.engine)
        .returning(Chunk.chunk_index)
    )
    if (await apply(session, committed)).first() is None:
        await session.rollback()
        return None
    await add_metrics(session, claim.job_id, outcome.metrics)
    running = job.status == JobStatus.PROCESSING and job.deleted_at is None
    last = running and job.chunks_completed == job.chunks_total
    wake_ups: list[WakeUp] = []
    if last:
        due = transitions.finalise_released(Job).where(Job.job_id == claim.job_id).returning(Job.failures)
        wake_ups = [WakeUp(claim.job_id, None, (await apply(session, due)).scalar_one())]
    elif running:
        wake_ups = await release_chunks(session, claim.job_id, FIRST_RELEASE if pin_language else 1)
    return Committed(job.event_seq, job.chunks_completed, job.chunks_total, last, tuple(wake_ups))


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """Result of a job. result_path: key of the stored result; result_ttl: seconds until the job expires (0: never)."""

    result_path: str
    text: str
    confidence: float
    processing_seconds: float
    result_ttl: int
    metrics: dict[str, float]


async def complete_job(session: AsyncSession, job_id: str, outcome: JobOutcome) -> list[str] | None:
    """Mark the job COMPLETED once; return the keys of its working audio, or None if it has ended or is deleted.

    Create intents for these objects, which are collected if this consumer does not delete them.
    """
    statement = (
        transitions.completed(Job, outcome.result_ttl)
        .where(Job.job_id == job_id, Job.chunks_completed == Job.chunks_total)
        .values(
            minio_result_path=outcome.result_path,
            transcription_text=outcome.text,
            confidence=outcome.confidence,
            processing_seconds=outcome.processing_seconds,
        )
        .returning(Job.working_audio_path, Job.chunks_expected)
    )
    row = (await apply(session, statement)).first()
    if row is None:
        return None
    audio = [row.working_audio_path] if row.chunks_expected is None else await list_audio(session, job_id)
    for key in filter(None, audio):
        await intents.create(session, key, job_id, WORKING_GRACE)
    await webhooks.enqueue(session, job_id, webhooks.COMPLETED)
    await add_metrics(session, job_id, outcome.metrics)
    return audio


async def add_metrics(session: AsyncSession, job_id: str, metrics: dict[str, float]) -> None:
    """Store measurements of the job, by name."""
    rows = [{"job_id": job_id, "metric_name": name, "metric_value": value} for name, value in metrics.items()]
    if rows:
        await session.execute(insert(Metric).values(recorded_at=after()), rows)
