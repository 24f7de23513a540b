"""Delete and expire, in two passes: objects and visibility at once, rows a day later with whatever was written late."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import TERMINAL
from repositories.failures import park_chunks
from repositories.models import Job

SECOND_PASS = 86_400.0
"""Seconds until the rows go: what a paused process wrote late is removed with them."""
BATCH = 50


async def mark_deleted(session: AsyncSession, job_id: str, owner: str) -> bool:
    """Hide an owner's job from everybody, also while it runs; False: there is none."""
    return await _mark(session, Job.job_id == job_id, Job.owner == owner) == [job_id]


async def mark_expired(session: AsyncSession) -> list[str]:
    """Hide ended jobs whose `expires_at` has passed; returns them."""
    due = select(Job.job_id).where(Job.expires_at <= after(), Job.deleted_at.is_(None), Job.status.in_(TERMINAL))
    oldest = due.order_by(Job.expires_at).limit(BATCH).scalar_subquery()
    return await _mark(session, Job.job_id.in_(oldest), Job.expires_at <= after())


async def _mark(session: AsyncSession, *conditions: ColumnElement[bool]) -> list[str]:
    statement = (
        update(Job)
        .where(*conditions, Job.deleted_at.is_(None))
        .values(
            deleted_at=after(),
            holder=None,
            due_at=None,
            replay_token=None,
            request_id=None,
            event_seq=Job.event_seq + 1,
            updated_at=after(),
        )
        .returning(Job.job_id)
        .execution_options(synchronize_session=False)
    )
    found = list((await session.execute(statement)).scalars())
    for job_id in found:
        await park_chunks(session, job_id)
    return found


async def second_pass_due(
    session: AsyncSession, older_than: float = SECOND_PASS, without: Collection[str] = ()
) -> list[str]:
    """Jobs hidden over `older_than` seconds ago, oldest first: their objects and rows may go."""
    due = (Job.deleted_at <= after(-older_than), Job.job_id.not_in(without))
    statement = select(Job.job_id).where(*due).order_by(Job.deleted_at).limit(BATCH)
    return list((await session.execute(statement)).scalars())


async def remove_rows(session: AsyncSession, job_id: str) -> None:
    """The job with its chunks and metrics."""
    await session.execute(delete(Job).where(Job.job_id == job_id, Job.deleted_at.is_not(None)))
