"""Leases: a living holder keeps renewing the rows it claimed, and the scheduler takes back those of dead ones."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories.claims import Claim
from repositories.models import Chunk, Job

BATCH = 200


async def renew(session: AsyncSession, held: Iterable[Claim], lease: float) -> list[Claim]:
    """Move the lease of every row in `held` to `lease` seconds from now; returns the claims whose job has ended.

    A claim that was taken from its holder for other reasons (it had lapsed) is renewed again where nobody has claimed
    the row since: then its holder was not dead, and is not counted as lost. Otherwise it is passed over.
    """
    # one statement a row, in the same order everywhere: two renewals that overlap cannot deadlock
    ordered = sorted(held, key=lambda claim: (claim.chunk_index is not None, claim.job_id, claim.chunk_index or 0))
    gone = [claim for claim in ordered if not await _renew(session, claim, lease)]
    ended = await _ended(session, {claim.job_id for claim in gone})
    return [claim for claim in gone if claim.job_id in ended]


async def _renew(session: AsyncSession, claim: Claim, lease: float) -> bool:
    row: type[Job] | type[Chunk] = Job if claim.chunk_index is None else Chunk
    mine = (row.job_id == claim.job_id,) if row is Job else (_same_chunk(claim),)
    # nothing else adds one to `lost`, and no other way of giving a row back leaves it with the holder's own number
    taken_back = and_(row.holder.is_(None), row.due_at.is_not(None), row.lost == claim.lost + 1)
    values: dict[str, Any] = {"holder": claim.holder, "lost": claim.lost, "due_at": after(lease)}
    statement = (
        update(row)
        .where(*mine, row.claim == claim.number, row.status.in_(OPEN), or_(row.holder == claim.holder, taken_back))
        .values(**values, **({} if row is Job else {"status": JobStatus.PROCESSING}))
        .returning(row.job_id)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(statement)).first() is not None


def _same_chunk(claim: Claim) -> ColumnElement[bool]:
    return and_(Chunk.job_id == claim.job_id, Chunk.chunk_index == claim.chunk_index)


async def _ended(session: AsyncSession, job_ids: set[str]) -> set[str]:
    """Those of the jobs that are cancelled, failed, deleted or unknown."""
    if not job_ids:
        return set()
    wanted = (Job.status.in_((*OPEN, JobStatus.COMPLETED)), Job.deleted_at.is_(None))
    statement = select(Job.job_id).where(Job.job_id.in_(job_ids), *wanted)
    return job_ids - set((await session.execute(statement)).scalars())


async def now(session: AsyncSession) -> datetime:
    """The clock that leases are measured by."""
    return (await session.execute(select(after()))).scalar_one()


async def release_lapsed(session: AsyncSession, before: datetime, limit: int = BATCH) -> int:
    """Take rows whose lease ended before `before` from their holders: each has lost a run and is due at once.

    A row that is being renewed at this moment is passed over. Returns how many rows were taken.
    """
    jobs = select(Job.job_id).where(_lapsed(Job, before)).order_by(Job.due_at).limit(limit)
    chunks = select(Chunk.job_id, Chunk.chunk_index).where(_lapsed(Chunk, before)).order_by(Chunk.due_at).limit(limit)
    of_jobs = Job.job_id.in_(jobs.with_for_update(skip_locked=True).scalar_subquery())
    of_chunks = tuple_(Chunk.job_id, Chunk.chunk_index).in_(chunks.with_for_update(skip_locked=True))
    taken = await _release(session, Job, of_jobs, before)
    return taken + await _release(session, Chunk, of_chunks, before, status=JobStatus.PENDING)


def _lapsed(row: type[Job] | type[Chunk], before: datetime) -> ColumnElement[bool]:
    return and_(row.due_at <= before, row.holder.is_not(None), row.status.in_(OPEN))


async def _release(
    session: AsyncSession, row: type[Job] | type[Chunk], some: ColumnElement[bool], before: datetime, **values: Any
) -> int:
    statement = (
        update(row)
        .where(some, _lapsed(row, before))
        .values(holder=None, lost=row.lost + 1, publishes=0, due_at=after(), updated_at=after(), **values)
        .returning(row.job_id)
        .execution_options(synchronize_session=False)
    )
    return len((await session.execute(statement)).all())
