"""The plan of a job: its chunks, inserted once and released a few at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job_options import JobOptions
from core.domain.spans import PlannedChunk
from repositories import intents, transitions
from repositories.claims import WakeUp
from repositories.models import Chunk, Job, Metric
from repositories.state_machine import apply

FIRST_RELEASE = 64
"""Number of chunks that Prepare releases; each commit releases one more."""
WORKING_GRACE = 60.0
"""Seconds after which working audio that is no longer needed is collected, unless its consumer deletes it earlier."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Result of Prepare. number: that of its claim; duration: seconds; key, working_bytes: of the working audio.

    checksums: CRC-32 of each chunk's own samples, in order; empty if unknown.
    """

    number: int
    key: str
    duration: float
    chunks: tuple[PlannedChunk, ...]
    model: str
    options: JobOptions
    download_seconds: float
    decode_seconds: float
    first_release: int = FIRST_RELEASE
    working_bytes: int | None = None
    checksums: tuple[int, ...] = ()


async def store_plan(session: AsyncSession, job_id: str, plan: Plan) -> list[WakeUp] | None:
    """Store the plan and insert its chunks, once per job; return None if the job has another plan or has ended.

    Returns the wake-ups to publish: the first chunks, or the job itself (its Finalise) if the plan has no chunks.
    """
    statement = (
        transitions.planned(Job, finalise=not plan.chunks)
        .where(Job.job_id == job_id, Job.chunks_total.is_(None))
        .values(
            chunks_total=len(plan.chunks),
            plan=plan.number,
            working_audio_path=plan.key,
            working_audio_bytes=plan.working_bytes,
            audio_duration_seconds=plan.duration,
            model=plan.model,
            options=plan.options,
            download_seconds=plan.download_seconds,
            decode_seconds=plan.decode_seconds,
        )
        .returning(Job.job_id)
    )
    if (await apply(session, statement)).first() is None:
        return None
    intent_valid = await intents.fulfil(session, plan.key)
    if plan.chunks and not intent_valid:
        # the intent has expired and the working audio may have been collected: Prepare is repeated
        await session.rollback()
        return None
    if not plan.chunks:
        return [WakeUp(job_id, None, 0)]
    rows = [_chunk_row(job_id, plan, index, chunk) for index, chunk in enumerate(plan.chunks)]
    await session.execute(insert(Chunk).values(**transitions.created.values(Chunk)), rows)
    return await release_chunks(session, job_id, plan.first_release)


def _chunk_row(job_id: str, plan: Plan, index: int, chunk: PlannedChunk) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "chunk_index": index,
        "plan": plan.number,
        "spans": [[span.first, span.last] for span in chunk.spans],
        "crc32": plan.checksums[index] if plan.checksums else None,
        "overlap": chunk.overlap,
        "start_time": chunk.start_time,
        "end_time": chunk.end_time,
    }


async def release_chunks(session: AsyncSession, job_id: str, count: int) -> list[WakeUp]:
    """Make the next `count` unreleased chunks due; the caller publishes them after the commit."""
    unreleased = (Chunk.job_id == job_id, transitions.released.applies(Chunk), Chunk.due_at.is_(None))
    indexes = select(Chunk.chunk_index).where(*unreleased).order_by(Chunk.chunk_index).limit(count).scalar_subquery()
    statement = (
        transitions.released(Chunk)
        .where(Chunk.job_id == job_id, Chunk.chunk_index.in_(indexes))
        .returning(Chunk.chunk_index, Chunk.failures)
    )
    rows = (await apply(session, statement)).all()
    return [WakeUp(job_id, row.chunk_index, row.failures) for row in sorted(rows)]


async def drop(session: AsyncSession, job_id: str) -> None:
    """Remove the plan with all its chunks, so that the next Prepare makes a new one.

    Create an intent for its working audio, which is then collected. A run that still holds a chunk cannot commit it.
    """
    path = (await session.execute(select(Job.working_audio_path).where(Job.job_id == job_id))).scalar_one()
    if path is not None:
        await intents.create(session, path, job_id, WORKING_GRACE)
    await apply(session, transitions.removed.deletion(Chunk).where(Chunk.job_id == job_id))
    await apply(session, delete(Metric).where(Metric.job_id == job_id))
    await apply(
        session,
        update(Job)
        .where(Job.job_id == job_id)
        .values(
            chunks_total=None,
            chunks_completed=0,
            plan=None,
            model=func.coalesce(func.nullif(Job.asked_model, ""), Job.model),
            working_audio_path=None,
            working_audio_bytes=None,
            detected_language=None,
            updated_at=after(),
        ),
    )
