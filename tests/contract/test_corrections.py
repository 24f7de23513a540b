"""Rows of corrections, on both databases."""

from __future__ import annotations

import asyncio

from sqlalchemy import update

from core.database import Database
from core.domain.job import JobStatus
from repositories import corrections, deletion
from repositories.corrections import GONE
from repositories.models import Job
from tests.contract.rows import new_job


async def completed_job(database: Database, owner: str = "local") -> str:
    job_id = await new_job(database, owner)
    async with database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(status=JobStatus.COMPLETED, due_at=None))
    return job_id


async def correct(database: Database, job_id: str, segment_id: int, text: str | None) -> int:
    async with database.write() as session:
        assert await corrections.lock_job(session, job_id, "local")
        return (await corrections.store(session, job_id, segment_id, text, "machine", "me")).version


async def test_changes_of_a_job_are_numbered_one_by_one(database: Database) -> None:
    job_id, other = await completed_job(database), await completed_job(database)
    versions = await asyncio.gather(*(correct(database, job_id, number % 3, f"{number}") for number in range(12)))
    assert sorted(versions) == list(range(1, 13))
    assert await correct(database, other, 0, None) == 1
    async with database.read() as session:
        changes = await corrections.list_changes(session, job_id)
        numbers = [change.version for change in changes]
        assert (len(numbers), numbers, numbers[-1]) == (3, sorted(numbers), 12)
        assert await corrections.list_changes(session, job_id, 11) == changes[-1:]
        assert await corrections.count(session, job_id) == 3
        assert await corrections.get(session, job_id, 7) is None
        latest = await corrections.get(session, job_id, changes[-1].segment_id)
    assert latest == changes[-1]


async def test_only_completed_jobs_of_the_owner_are_locked(database: Database) -> None:
    unfinished, foreign = await new_job(database), await completed_job(database, "other")
    async with database.write() as session:
        for job_id in (unfinished, foreign, "00000000-0000-0000-0000-000000000000"):
            assert not await corrections.lock_job(session, job_id, "local")


async def test_states_and_removal(database: Database) -> None:
    changed, unchanged, deleted = [await completed_job(database) for _ in range(3)]
    await correct(database, changed, 5, "text")
    await correct(database, deleted, 5, "text")
    async with database.write() as session:
        assert await deletion.mark_deleted(session, deleted, "local")
    async with database.read() as session:
        states = await corrections.list_states(session, [changed, unchanged, deleted])
    assert states == {changed: (1, False), unchanged: (0, False), deleted: (GONE, True)}
    async with database.write() as session:
        await deletion.purge(session, [deleted])
    async with database.read() as session:
        assert await corrections.list_changes(session, deleted) == []
        assert deleted not in await corrections.list_states(session, [deleted])
