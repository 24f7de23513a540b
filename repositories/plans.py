"""The plan of a job: its chunks, inserted once and released a few at a time.

The plan of a long recording is stored in instalments while it is decoded (`transitions.extended`), each with an object
of working audio of its own, and closed by `store_plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import AUTO
from core.domain.job_options import JobOptions
from core.domain.spans import PlannedChunk
from repositories import intents, transitions
from repositories.claims import WORKING_LIFETIME, Claim, WakeUp
from repositories.models import Chunk, Job, Metric
from repositories.state_machine import apply

FIRST_RELEASE = 64
"""Number of chunks that Prepare releases; each commit releases one more."""
WORKING_GRACE = 60.0
"""Seconds after which working audio that is no longer needed is collected, unless its consumer deletes it earlier."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Result of Prepare. number: that of its first claim; duration: seconds; key, working_bytes: of the working audio.

    checksums: CRC-32 of each chunk's own samples, in order; empty if unknown. Of a plan that has instalments: claim:
    the one that extends it; first_index: index of the first of `chunks`; audio_start: first sample of the object.
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
    claim: Claim | None = None
    first_index: int = 0
    audio_start: int = 0

    @property
    def total(self) -> int:
        """Number of chunks, those of earlier instalments included."""
        return self.first_index + len(self.chunks)

    def pinned(self) -> dict[str, Any]:
        """Return the job's columns that each instalment and the whole plan set."""
        return {
            "plan": self.number,
            "audio_duration_seconds": self.duration,
            "model": self.model,
            "options": self.options,
            "download_seconds": self.download_seconds,
        }


async def store_instalment(
    session: AsyncSession, claim: Claim, plan: Plan, *, expected: int, next_key: str
) -> list[WakeUp] | None:
    """Insert the chunks of an instalment; return None if the claim is lost, or the instalment is stored already.

    plan: with the chunks of the instalment, and the estimated duration; expected: number of chunks of the recording,
    estimated; next_key: object of the next part, which gets an intent. Returns the wake-ups to publish.
    """
    statement = (
        transitions.extended(Job)
        .where(claim.fence(), Job.chunks_total.is_(None), Job.working_audio_path.is_distinct_from(plan.key))
        .values(working_audio_path=plan.key, chunks_expected=expected, **plan.pinned())
        .returning(Job.language, Job.detected_language)
    )
    row = (await apply(session, statement)).first()
    if row is None:
        return None
    if not await intents.fulfil(session, plan.key):
        await session.rollback()
        return None
    await intents.create(session, next_key, claim.job_id, WORKING_LIFETIME)
    await _insert_chunks(session, claim.job_id, plan, plan.key)
    return await _release_more(session, claim.job_id, row.language, row.detected_language)


async def store_plan(session: AsyncSession, job_id: str, plan: Plan) -> list[WakeUp] | None:
    """Store the plan and insert its chunks, once per job; return None if the job has another plan or has ended.

    Returns the wake-ups to publish: the first chunks, or the job itself (its Finalise) if no chunk is left to run.
    """
    if plan.claim is not None:
        return await _close_plan(session, plan.claim, plan)
    statement = (
        transitions.planned(Job, finalise=not plan.chunks)
        .where(Job.job_id == job_id, Job.chunks_total.is_(None), Job.plan.is_(None))
        .values(working_audio_path=plan.key, **_closed(plan))
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
    await _insert_chunks(session, job_id, plan, None)
    return await release_chunks(session, job_id, plan.first_release)


async def _close_plan(session: AsyncSession, claim: Claim, plan: Plan) -> list[WakeUp] | None:
    """Store the rest of a plan that has instalments. Returns as `store_plan`."""
    still_open = (claim.fence(), Job.chunks_total.is_(None), Job.plan == plan.number)
    columns = (Job.chunks_completed, Job.language, Job.detected_language)
    row = (await session.execute(select(*columns).where(*still_open).with_for_update())).first()
    if row is None:
        return None
    intent_valid = await intents.fulfil(session, plan.key)
    if plan.chunks and not intent_valid:
        await session.rollback()
        return None
    finalise = row.chunks_completed == plan.total
    path = {"working_audio_path": plan.key} if plan.chunks else {}
    statement = transitions.planned(Job, finalise=finalise).where(*still_open)
    await apply(session, statement.values(**path, **_closed(plan)))
    await _insert_chunks(session, claim.job_id, plan, plan.key)
    if finalise:
        return [WakeUp(claim.job_id, None, 0)]
    return await _release_more(session, claim.job_id, row.language, row.detected_language)


def _closed(plan: Plan) -> dict[str, Any]:
    return {
        **plan.pinned(),
        "chunks_total": plan.total,
        "working_audio_bytes": plan.working_bytes,
        "decode_seconds": plan.decode_seconds,
    }


async def _insert_chunks(session: AsyncSession, job_id: str, plan: Plan, audio_path: str | None) -> None:
    """Insert the chunks. audio_path: the object with their samples; None: the job's only one."""
    rows = [
        {**_chunk_row(job_id, plan, index, chunk), "audio_path": audio_path, "audio_start": plan.audio_start}
        for index, chunk in enumerate(plan.chunks)
    ]
    if rows:
        await session.execute(insert(Chunk).values(**transitions.created.values(Chunk)), rows)


def _chunk_row(job_id: str, plan: Plan, index: int, chunk: PlannedChunk) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "chunk_index": plan.first_index + index,
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


async def _release_more(
    session: AsyncSession, job_id: str, language: str, detected_language: str | None
) -> list[WakeUp]:
    """Release chunks until FIRST_RELEASE of them wait or run; only one while the language is to be detected."""
    most = 1 if language == AUTO and detected_language is None else FIRST_RELEASE
    outstanding = select(func.count()).where(Chunk.job_id == job_id, Chunk.due_at.is_not(None))
    room = most - (await session.execute(outstanding)).scalar_one()
    return await release_chunks(session, job_id, room) if room > 0 else []


async def find_released(session: AsyncSession, job_id: str) -> tuple[int, int]:
    """Return the number of chunks of an open plan, and the sample of the recording at which the last one ends."""
    last = select(Chunk.chunk_index, Chunk.spans).where(Chunk.job_id == job_id)
    row = (await session.execute(last.order_by(Chunk.chunk_index.desc()).limit(1))).first()
    return (0, 0) if row is None else (row.chunk_index + 1, row.spans[-1][1])


async def uses_audio(session: AsyncSession, job_id: str, key: str) -> bool:
    """Return True if the object holds working audio of the job's plan, and the job is not deleted."""
    of_a_chunk = exists().where(Chunk.job_id == job_id, Chunk.audio_path == key)
    used = (Job.job_id == job_id, Job.deleted_at.is_(None), or_(Job.working_audio_path == key, of_a_chunk))
    return (await session.execute(select(Job.job_id).where(*used))).first() is not None


async def list_audio(session: AsyncSession, job_id: str) -> list[str]:
    """Return the keys of the job's working audio: one object, or one per instalment."""
    columns = (Job.working_audio_path, Job.chunks_expected)
    job = (await session.execute(select(*columns).where(Job.job_id == job_id))).one()
    if job.chunks_expected is None:
        return [] if job.working_audio_path is None else [job.working_audio_path]
    keys = select(Chunk.audio_path).where(Chunk.job_id == job_id).distinct()
    return [key for key in (await session.execute(keys)).scalars() if key is not None]


async def drop(session: AsyncSession, job_id: str) -> None:
    """Remove the plan with all its chunks, so that the next Prepare makes a new one.

    Create an intent for its working audio, which is then collected. A run that still holds a chunk cannot commit it.
    """
    for key in await list_audio(session, job_id):
        await intents.create(session, key, job_id, WORKING_GRACE)
    await apply(session, transitions.removed.deletion(Chunk).where(Chunk.job_id == job_id))
    await apply(session, delete(Metric).where(Metric.job_id == job_id))
    await apply(
        session,
        update(Job)
        .where(Job.job_id == job_id)
        .values(
            chunks_total=None,
            chunks_completed=0,
            chunks_expected=None,
            plan=None,
            model=func.coalesce(func.nullif(Job.asked_model, ""), Job.model),
            working_audio_path=None,
            working_audio_bytes=None,
            detected_language=None,
            updated_at=after(),
        ),
    )
