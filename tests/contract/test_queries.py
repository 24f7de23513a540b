"""Queries, the clock and database errors, on both databases."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from core.database import Database, after
from core.domain.job import JobStatus
from core.errors import AlreadyExists, DatabaseUnavailable
from repositories import intents, job_statistics, jobs, workers
from repositories.models import Job
from tests.contract.rows import job, new_job, planned_job, run_chunk
from tests.servers.base import Server
from tests.servers.postgres import Postgres


async def test_another_owners_job_is_not_found(database: Database) -> None:
    job_id = await new_job(database, owner="anna")
    async with database.read() as session:
        assert await jobs.get(session, job_id, "anna") is not None
        assert await jobs.get(session, job_id, "peter") is None
        assert await jobs.get(session, job_id) is not None


async def test_a_request_id_is_free_for_another_owner(database: Database) -> None:
    await new_job(database, owner="anna", request_id="r1")
    await new_job(database, owner="peter", request_id="r1")
    with pytest.raises(AlreadyExists):
        await new_job(database, owner="anna", request_id="r1")


async def test_counts_name_every_status(database: Database) -> None:
    await new_job(database)
    await planned_job(database, 1)
    async with database.read() as session:
        counts = await job_statistics.count_by_status(session)
    assert counts == {"PENDING": 1, "PROCESSING": 1, "COMPLETED": 0, "FAILED": 0, "CANCELLED": 0}


async def test_transcripts_come_in_order(database: Database) -> None:
    job_id = await planned_job(database, 3)
    for index in (2, 0, 1):
        await run_chunk(database, job_id, index)
    async with database.read() as session:
        transcripts = await jobs.list_transcripts(session, job_id)
        assert await jobs.last_committed_at(session, job_id) is not None
    assert [chunk.index for chunk in transcripts] == [0, 1, 2]
    assert transcripts[0].segments[0].text == "hello"


async def test_waiting_audio_is_the_remainder_of_older_jobs(database: Database) -> None:
    job_id = await planned_job(database, 10)
    await run_chunk(database, job_id, 0)
    younger = await job(database, await new_job(database))
    async with database.read() as session:
        backlog = await job_statistics.backlog(session)
    assert backlog.before(younger.created_at) == pytest.approx(9.0)
    assert backlog.before(younger.created_at - timedelta(days=1)) == 0


def test_audio_beyond_the_summed_jobs_is_extrapolated() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    submits = tuple(start + timedelta(minutes=minute) for minute in (0, 5, 10))
    backlog = job_statistics.Backlog(submits, (30.0, 60.0, 90.0), newest=start + timedelta(minutes=30))
    assert backlog.before(start + timedelta(minutes=6)) == 60
    assert backlog.before(start + timedelta(minutes=20)) == pytest.approx(180)
    assert backlog.before(start + timedelta(days=1)) == pytest.approx(270), "not beyond the last running job"


async def test_length_is_estimated_from_measured_files_only(database: Database) -> None:
    async with database.read() as session:
        assert await job_statistics.seconds_per_megabyte(session, "wav") is None
    await planned_job(database, 30)
    async with database.read() as session:
        assert await job_statistics.seconds_per_megabyte(session, "wav") == pytest.approx(30.0)
        assert await job_statistics.seconds_per_megabyte(session, "mp3") is None


async def test_the_owners_band_falls_with_unfinished_jobs(database: Database) -> None:
    bands = [(await job(database, await new_job(database))).band for _ in range(12)]
    assert bands == [2] * 10 + [1] * 2


async def test_health_has_the_engines_of_a_mixed_fleet(database: Database) -> None:
    fleet = {"w1": {"demo": "b 1", "base": "b 1"}, "w2": {"demo": "a 1"}, "w3": {"demo": "b 1"}, "w4": {}}
    async with database.write() as session:
        for name, engines in fleet.items():
            info = workers.WorkerInfo(name, workers.CONSUMER, "host", 1, "0", 2, (), engines=engines)
            await workers.heartbeat(session, info)
    async with database.read() as session:
        assert workers.engines_in_use(await workers.list_live(session)) == {"base": ["b 1"], "demo": ["a 1", "b 1"]}


async def test_workers_are_active_while_they_send_heartbeats(database: Database) -> None:
    worker = workers.WorkerInfo("w1", workers.CONSUMER, "host", 1, "0", 2, ("demo", "base"))
    async with database.write() as session:
        await workers.heartbeat(session, worker)
        await workers.heartbeat(session, worker)
    async with database.read() as session:
        assert workers.available_models(await workers.list_live(session)) == ["base", "demo"]
    async with database.write() as session:
        from repositories.models import Worker

        await session.execute(update(Worker).values(heartbeat_at=after(-60)))
    async with database.read() as session:
        assert await workers.list_live(session) == []


async def test_an_intent_is_kept_until_it_expires_and_not_after(database: Database) -> None:
    late, early = "uploads/1/a.wav", "uploads/2/a.wav"
    async with database.write() as session:
        await intents.create(session, late, "00000000-0000-4000-8000-000000000001", lifetime=-1)
        await intents.create(session, early, "00000000-0000-4000-8000-000000000002")
    async with database.write() as session:
        assert await intents.fulfil(session, early)
        assert not await intents.fulfil(session, early)
        assert [intent.key for intent in await intents.list_expired(session)] == [late]
        assert not await intents.fulfil(session, late)
        assert await intents.list_expired(session) == []


async def test_the_clock_counts_from_now(database: Database) -> None:
    job_id = await new_job(database)
    async with database.write() as session:
        await session.execute(update(Job).values(expires_at=after(3600)))
    expires = (await job(database, job_id)).expires_at
    assert expires is not None
    assert expires.tzinfo is not None
    assert abs(expires - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=20)


async def test_times_keep_their_microseconds(database: Database) -> None:
    instant = datetime(2026, 2, 28, 23, 59, 59, 123_457, tzinfo=UTC)
    job_id = await new_job(database)
    async with database.write() as session:
        await session.execute(update(Job).values(expires_at=instant))
    assert (await job(database, job_id)).expires_at == instant


async def test_an_exception_rolls_back(database: Database) -> None:
    job_id = await new_job(database)
    with pytest.raises(RuntimeError):
        async with database.write() as session:
            await session.execute(update(Job).values(status=JobStatus.FAILED))
            raise RuntimeError
    assert (await job(database, job_id)).status == JobStatus.PENDING


async def test_fifty_concurrent_writers(database: Database) -> None:
    job_id = await new_job(database)

    async def add() -> None:
        async with database.write() as session:
            await session.execute(update(Job).values(event_seq=Job.event_seq + 1))

    await asyncio.gather(*(add() for _ in range(50)))
    assert (await job(database, job_id)).event_seq == 50


@pytest.mark.servers
async def test_a_stopped_server_is_unavailable(postgres_server: Postgres, postgres_url: str) -> None:
    if not isinstance(postgres_server, Server):
        pytest.skip("an external server cannot be stopped")
    database = Database(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    await database.ping()
    await asyncio.to_thread(postgres_server.kill)
    try:
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        with pytest.raises(DatabaseUnavailable):
            async with database.write() as session:
                await session.execute(select(Job))
    finally:
        await asyncio.to_thread(postgres_server.start)
    await database.ping()
    await database.stop()
