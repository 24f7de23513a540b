"""Boosts of starving jobs, within a budget and oldest first, on both databases."""

from __future__ import annotations

from sqlalchemy import update

from core.database import Database, after
from repositories import claims, schedule, starvation
from repositories.claims import ClaimRequest, WakeUp
from repositories.models import Chunk, Job
from tests.contract.rows import LEASE, WORKER, claim, new_job, planned_job


async def boost(database: Database, budget: int = starvation.BUDGET) -> list[WakeUp]:
    async with database.write() as session:
        return await starvation.boost_starving(session, 300, budget)


async def set_quiet(database: Database, seconds: float, job_id: str | None = None) -> None:
    """Date the job's last progress and last boost back by `seconds`."""
    which = Job.job_id == job_id if job_id else Job.job_id.is_not(None)
    long_ago = {"progressed_at": after(-seconds)}
    async with database.write() as session:
        await session.execute(update(Job).where(which).values(**long_ago))


async def boosted_before(database: Database, seconds: float) -> None:
    async with database.write() as session:
        await session.execute(update(Job).where(Job.boosted_at.is_not(None)).values(boosted_at=after(-seconds)))


async def test_a_starving_job_has_one_boost_outstanding(database: Database) -> None:
    job_id = await planned_job(database, 3)
    assert await boost(database) == []
    await set_quiet(database, 400)
    assert await boost(database) == [WakeUp(job_id, 0, 0)]
    await boosted_before(database, 400)
    assert await boost(database) == [], "the first boost is still waiting"
    await claim(database, job_id, 0)
    assert await boost(database) == [], "the chunk is running"
    async with database.write() as session:
        await session.execute(update(Job).values(progressed_at=after(-4000)))
        await session.execute(update(Chunk).values(claimed_at=after(-350)))
    assert await boost(database) == [WakeUp(job_id, 1, 0)], "an interval without progress"


async def test_boosts_stay_within_a_budget_oldest_first(database: Database) -> None:
    job_ids = [await new_job(database) for _ in range(12)]
    for age, job_id in enumerate(job_ids):
        await set_quiet(database, 10_000 - age, job_id)
    assert [row.job_id for row in await boost(database, 4)] == job_ids[:4]
    for _ in range(5):
        assert await boost(database, 4) == []
        await boosted_before(database, 400)
    async with database.write() as session:
        assert await claims.claim_prepare(session, job_ids[2], 0, ClaimRequest(WORKER, LEASE)) is not None
    assert [row.job_id for row in await boost(database, 4)] == [job_ids[4]]


async def test_each_queue_has_its_own_budget(database: Database) -> None:
    unplanned = [await new_job(database) for _ in range(3)]
    planned = [await planned_job(database, 2) for _ in range(3)]
    await set_quiet(database, 400)
    rows = await boost(database, 2)
    assert sum(row.job_id in unplanned for row in rows) == 2
    assert sum(row.job_id in planned for row in rows) == 2


async def test_boosts_lost_in_a_purged_queue_do_not_use_up_the_budget(database: Database) -> None:
    job_ids = [await new_job(database) for _ in range(4)]
    await set_quiet(database, 400)
    first = await boost(database, 2)
    assert await boost(database, 2) == []
    await boosted_before(database, 40)
    async with database.write() as session:
        await schedule.republish_unclaimed(session, chunks=False)
    assert {row.job_id for row in await boost(database, 2)} <= set(job_ids)
    assert len(first) == 2
