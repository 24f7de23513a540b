"""Leases: holders renew their claims, and the scheduler releases rows whose lease was not renewed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.job import OPEN, JobStatus
from repositories import transitions
from repositories.batches import locked
from repositories.claims import Claim
from repositories.models import Chunk, Job
from repositories.state_machine import Table, apply

BATCH = 200


async def renew(session: AsyncSession, held: Iterable[Claim], lease: float) -> list[Claim]:
    """Extend the lease of every claim in `held` to `lease` seconds from now; return the claims whose job has ended.

    A lapsed claim is restored, and its lost run no longer counted, unless the row was claimed since. A claim whose row
    was claimed again or handed back is left alone.
    """
    # one statement per row, always in the same order, so that concurrent renewals cannot deadlock
    ordered = sorted(held, key=lambda claim: (claim.chunk_index is not None, claim.job_id, claim.chunk_index or 0))
    refused = [claim for claim in ordered if not await _renew(session, claim, lease)]
    job_ids = {claim.job_id for claim in refused}
    if not job_ids:
        return []
    running = (Job.status.in_((*OPEN, JobStatus.COMPLETED)), Job.deleted_at.is_(None))
    statement = select(Job.job_id).where(Job.job_id.in_(job_ids), *running)
    ended = job_ids - set((await session.execute(statement)).scalars())
    return [claim for claim in refused if claim.job_id in ended]


async def _renew(session: AsyncSession, claim: Claim, lease: float) -> bool:
    table = claim.table
    # only a lapse increments `lost` and leaves the row without a holder but with this claim's number
    lapsed = and_(table.holder.is_(None), table.due_at.is_not(None), table.lost == claim.lost + 1)
    statement = (
        transitions.renewed(table, claim.holder, claim.lost, lease)
        .where(claim.row(), table.claim == claim.number, or_(table.holder == claim.holder, lapsed))
        .returning(table.job_id)
    )
    return (await apply(session, statement)).first() is not None


async def current_time(session: AsyncSession) -> datetime:
    """Return the database's time, by which leases are measured."""
    return (await session.execute(select(after()))).scalar_one()


async def release_lapsed(session: AsyncSession, before: datetime, limit: int = BATCH) -> int:
    """Release rows whose lease ended by `before`, due at once and with one more lost run; return their number.

    Rows that are being renewed at the same time are skipped.
    """
    job_ids = select(Job.job_id).where(_lapsed(Job, before)).order_by(Job.due_at).limit(limit)
    chunks = select(Chunk.job_id, Chunk.chunk_index).where(_lapsed(Chunk, before)).order_by(Chunk.due_at).limit(limit)
    lapsed: list[tuple[Table, ColumnElement[bool]]] = [
        (Job, Job.job_id.in_(locked(job_ids))),
        (Chunk, tuple_(Chunk.job_id, Chunk.chunk_index).in_(locked(chunks))),
    ]
    count = 0
    for table, rows in lapsed:
        statement = transitions.lapsed(table).where(rows, table.due_at <= before).returning(table.job_id)
        count += len((await apply(session, statement)).all())
    return count


def _lapsed(table: Table, before: datetime) -> ColumnElement[bool]:
    return and_(transitions.lapsed.applies(table), table.due_at <= before)
