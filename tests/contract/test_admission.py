"""Limits on the work in progress of one owner, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from core.database import Database, after
from core.domain.job import JobStatus
from repositories import admission, claims, jobs, schedule
from repositories.claims import Claim, ClaimRequest, WakeUp
from repositories.models import Job
from tests.contract.rows import new_job

WORKER = "w"


async def pending_job(database: Database, owner: str = "anna", **values: Any) -> str:
    job_id = await new_job(database, owner)
    async with database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(updated_at=after(), **values))
    return job_id


async def url_submissions(database: Database, owner: str = "anna") -> str:
    return await pending_job(database, owner, media_url="https://example.com/a.mp3", minio_audio_path=None)


async def prepared(database: Database, seconds: float, **values: Any) -> str:
    values |= {"status": JobStatus.PROCESSING, "chunks_total": 9, "audio_duration_seconds": seconds, "due_at": None}
    return await pending_job(database, **values)


def request() -> ClaimRequest:
    return ClaimRequest(WORKER, 60.0)


async def fetch(database: Database, job_id: str, most: int = 2) -> tuple[Claim, Job] | None:
    async with database.write() as session:
        return await admission.claim_fetch(session, job_id, 0, request(), most)


async def prepare(database: Database, job_id: str, most: float = 100) -> tuple[Claim, Job] | None:
    async with database.write() as session:
        return await admission.claim_prepare(session, job_id, 0, request(), most)


async def wake(database: Database, owner: str = "anna", count: int = 4) -> list[WakeUp]:
    async with database.write() as session:
        return await admission.admit_next(session, owner, claims.unfetched() | claims.unprepared(), count)


async def read(database: Database, job_id: str) -> Job:
    async with database.read() as session:
        return (await session.execute(select(Job).where(Job.job_id == job_id))).scalar_one()


async def test_concurrent_fetches_of_one_owner_are_limited(database: Database) -> None:
    """Ten concurrent claims; other owners are not affected."""
    ids = [await url_submissions(database) for _ in range(10)]
    other = await url_submissions(database, "ben")
    fetched = await asyncio.gather(*(fetch(database, job_id) for job_id in [*ids, other]))
    assert sum(one is not None for one in fetched[:-1]) == 2
    assert fetched[-1] is not None


async def test_a_deferred_row_waits_until_it_is_woken(database: Database) -> None:
    first, second, third = [await url_submissions(database) for _ in range(3)]
    assert await fetch(database, first, 1)
    assert await fetch(database, third, 1) is None
    assert await fetch(database, second, 1) is None
    job = await read(database, second)
    async with database.read() as session:
        late = select(Job.job_id).where(Job.job_id == second, Job.due_at > after(60))
        assert (await session.execute(late)).first(), "a purged queue does not wake it"
        assert await admission.list_waiting_owners(session) == ["anna"]
    assert (job.holder, job.status, job.failures) == (None, JobStatus.PENDING, 0)
    assert await wake(database, "ben") == []
    assert await wake(database, count=1) == [WakeUp(second, None, 0)], "the oldest first"
    assert await wake(database) == [WakeUp(third, None, 0)]
    assert await wake(database) == []


async def test_a_fetched_recording_wakes_its_prepare_once(database: Database) -> None:
    job_id = await url_submissions(database)
    assert await prepare(database, job_id) is None, "there is nothing to decode yet"
    assert await fetch(database, job_id)
    async with database.write() as session:
        assert await jobs.store_source(session, job_id, "uploads/x", 5, 1.0) == WakeUp(job_id, None, 0)
        assert await jobs.store_source(session, job_id, "uploads/y", 5, 1.0) is None
    assert await fetch(database, job_id) is None
    assert await prepare(database, job_id)


async def test_prepared_audio_of_one_owner_is_limited(database: Database) -> None:
    await prepared(database, 99)
    assert await prepare(database, await pending_job(database)), (
        "total below the limit, whatever the recording's own length"
    )
    await prepared(database, 5)
    late = await pending_job(database)
    assert await prepare(database, late) is None
    assert await prepare(database, await pending_job(database, "ben"))
    assert await prepare(database, late, 0), "0: no limit"


async def test_the_first_recording_of_an_owner_may_have_any_length(database: Database) -> None:
    assert await prepare(database, await pending_job(database), 1)


@pytest.mark.parametrize(("priority", "passes"), [("high", True), ("normal", False), ("low", False)])
async def test_audio_of_lower_priority_does_not_count(database: Database, priority: str, passes: bool) -> None:
    await prepared(database, 10_000, priority="normal")
    assert bool(await prepare(database, await pending_job(database, priority=priority))) is passes


async def test_higher_priority_is_woken_first(database: Database) -> None:
    await prepared(database, 10_000, priority="high")
    ids = {name: await pending_job(database, priority=name) for name in ("low", "normal", "high")}
    for job_id in ids.values():
        assert await prepare(database, job_id) is None
    woken = [(await wake(database, count=1))[0].job_id for _ in range(3)]
    assert woken == [ids["high"], ids["normal"], ids["low"]]


async def test_only_rows_of_a_purged_queue_are_published_again(database: Database) -> None:
    """The backlog of a queue is not due because another queue is empty, nor are deferred rows."""
    waiting: dict[str, Any] = {"publishes": 1, "due_at": after(300)}
    upload, url = (
        await pending_job(database, **waiting),
        await pending_job(database, **waiting, media_url="u", minio_audio_path=None),
    )
    late = await pending_job(database, **waiting, media_url="u", minio_audio_path=None, put_off_at=after())
    last = await pending_job(
        database, **waiting, status=JobStatus.PROCESSING, chunks_total=1, chunks_completed=1, claim=1
    )

    async def due(**queues: bool) -> set[str]:
        async with database.write() as session:
            none = {"jobs": False, "fetches": False, "finalises": False, "chunks": False}
            await schedule.republish_unclaimed(session, **none | queues, older_than=-60)
            found = set((await session.execute(select(Job.job_id).where(Job.due_at <= after(1)))).scalars())
            await session.execute(update(Job).values(due_at=after(300)))
            return found

    assert await due(fetches=True) == {url}
    assert await due(jobs=True) == {upload}
    assert await due(finalises=True) == {last}
    assert late not in await due(jobs=True, fetches=True, finalises=True, chunks=True)
