"""The plan of a job: its chunk rows, inserted once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, null, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from core.domain.job_options import JobOptions
from core.domain.spans import PlannedChunk
from repositories import intents
from repositories.claims import FIRST_RELEASE, RELEASE_DELAY, WORKING_GRACE, WakeUp, release_chunks
from repositories.models import Chunk, Job, Metric


@dataclass(frozen=True, slots=True)
class Plan:
    """What Prepare found out. number: the claim that made it; duration in seconds; key and bytes of the working audio.

    checksums: CRC-32 of each chunk's own samples, in order; empty: unknown.
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
    """Insert the chunk rows, once per job; None: another Prepare was first, or the job has ended meanwhile.

    Returns what may be published: the first chunks, or the job itself (its Finalise) where there are none.
    """
    none = not plan.chunks
    row = (
        await session.execute(
            update(Job)
            .where(Job.job_id == job_id, Job.chunks_total.is_(None), Job.status.in_(OPEN), Job.deleted_at.is_(None))
            .values(
                status=JobStatus.PROCESSING,
                chunks_total=len(plan.chunks),
                plan=plan.number,
                working_audio_path=plan.key,
                working_audio_bytes=plan.working_bytes,
                audio_duration_seconds=plan.duration,
                model=plan.model,
                model_missing_since=None,
                options=plan.options,
                download_seconds=plan.download_seconds,
                decode_seconds=plan.decode_seconds,
                holder=None,
                failures=0,
                lost=0,
                publishes=0,
                boosted_at=None,
                error_code=None,
                error_message=None,
                error_details=null(),
                due_at=after(RELEASE_DELAY) if none else None,
                event_seq=Job.event_seq + 1,
                progressed_at=after(),
                updated_at=after(),
            )
            .returning(Job.job_id)
            .execution_options(synchronize_session=False)
        )
    ).first()
    if row is None:
        return None
    noted = await intents.keep(session, plan.key)
    if plan.chunks and not noted:
        # its working audio was collected meanwhile: whoever slept so long begins again
        await session.rollback()
        return None
    if none:
        return [WakeUp(job_id, None, 0)]
    rows = [_chunk_row(job_id, plan, index, chunk) for index, chunk in enumerate(plan.chunks)]
    await session.execute(insert(Chunk).values(updated_at=after()), rows)
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
        "status": JobStatus.PENDING,
    }


async def drop(session: AsyncSession, job_id: str) -> None:
    """Forget the plan with its chunks, finished ones included: the next Prepare makes another.

    Its working audio is noted for collection. A run that still holds one of the chunks commits nothing any more.
    """
    path = (await session.execute(select(Job.working_audio_path).where(Job.job_id == job_id))).scalar_one()
    if path is not None:
        await intents.note(session, path, job_id, WORKING_GRACE)
    await session.execute(delete(Chunk).where(Chunk.job_id == job_id))
    await session.execute(delete(Metric).where(Metric.job_id == job_id))
    await session.execute(
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
        )
        .execution_options(synchronize_session=False)
    )
