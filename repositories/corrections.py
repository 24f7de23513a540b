"""Corrections of segments: the latest change of each, numbered per job."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.corrections import Correction
from core.domain.job import JobStatus
from repositories.models import Job, SegmentCorrectionRow
from repositories.state_machine import apply

GONE = 2**62
"""Number of the last change of a job that is deleted."""


async def lock_job(session: AsyncSession, job_id: str, owner: str) -> bool:
    """Serialise the corrections of a completed job; return False if the job is not there."""
    statement = select(Job.job_id).where(
        Job.job_id == job_id,
        Job.owner == owner,
        Job.status == JobStatus.COMPLETED,
        Job.deleted_at.is_(None),
    )
    return (await session.execute(statement.with_for_update(key_share=True))).first() is not None


async def list_changes(session: AsyncSession, job_id: str, after_version: int = 0) -> list[Correction]:
    """Return the changes with a greater number, in the order in which they were made."""
    statement = (
        select(SegmentCorrectionRow)
        .where(SegmentCorrectionRow.job_id == job_id, SegmentCorrectionRow.version > after_version)
        .order_by(SegmentCorrectionRow.version)
    )
    return [_correction(row) for row in (await session.execute(statement)).scalars()]


async def get(session: AsyncSession, job_id: str, segment_id: int) -> Correction | None:
    """Return the latest change of the segment, or None if it was never corrected."""
    row = await session.get(SegmentCorrectionRow, (job_id, segment_id), populate_existing=True)
    return None if row is None else _correction(row)


async def count(session: AsyncSession, job_id: str) -> int:
    """Return the number of segments of the job that were ever corrected."""
    statement = select(func.count()).select_from(SegmentCorrectionRow).where(SegmentCorrectionRow.job_id == job_id)
    return (await session.execute(statement)).scalar_one()


async def count_current(session: AsyncSession, job_ids: Collection[str]) -> dict[str, int]:
    """Return the number of corrected segments by job; jobs without any are left out."""
    statement = (
        select(SegmentCorrectionRow.job_id, func.count())
        .where(SegmentCorrectionRow.job_id.in_(job_ids), SegmentCorrectionRow.text.is_not(None))
        .group_by(SegmentCorrectionRow.job_id)
    )
    return {row[0]: row[1] for row in (await session.execute(statement)).all()}


async def store(
    session: AsyncSession, job_id: str, segment_id: int, text: str | None, machine_text: str, author: str
) -> Correction:
    """Store a change of the segment and return it. Call it under `lock_job`. text: None removes the correction."""
    same = (SegmentCorrectionRow.job_id == job_id, SegmentCorrectionRow.segment_id == segment_id)
    latest = select(func.coalesce(func.max(SegmentCorrectionRow.version), 0)).where(
        SegmentCorrectionRow.job_id == job_id
    )
    values = {
        "version": (await session.execute(latest)).scalar_one() + 1,
        "text": text,
        "machine_text": machine_text,
        "author": author,
        "corrected_at": after(),
    }
    changed = await apply(
        session, update(SegmentCorrectionRow).where(*same).values(values).returning(SegmentCorrectionRow.segment_id)
    )
    if changed.first() is None:
        await session.execute(insert(SegmentCorrectionRow).values(job_id=job_id, segment_id=segment_id, **values))
    stored = await get(session, job_id, segment_id)
    assert stored is not None
    return stored


async def list_states(session: AsyncSession, job_ids: Collection[str]) -> dict[str, tuple[int, bool]]:
    """Return by job the number of its last change, and True if it is deleted. Unknown jobs are left out."""
    version = func.coalesce(func.max(SegmentCorrectionRow.version), 0)
    statement = (
        select(Job.job_id, Job.deleted_at, version)
        .outerjoin(SegmentCorrectionRow, SegmentCorrectionRow.job_id == Job.job_id)
        .where(Job.job_id.in_(job_ids))
        .group_by(Job.job_id, Job.deleted_at)
    )
    rows = (await session.execute(statement)).all()
    return {row[0]: (row[2], False) if row[1] is None else (GONE, True) for row in rows}


def _correction(row: SegmentCorrectionRow) -> Correction:
    return Correction(row.segment_id, row.version, row.text, row.machine_text, row.author, row.corrected_at)
