"""Waiting, running and dying: a consumer and a scheduler in this process, on the embedded stores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from core.database import after
from core.domain.job import JobStatus
from core.errors import BrokerUnavailable, StorageUnavailable
from core.messaging.memory import MemoryBroker
from core.messaging.port import Ack, Delivery, Message, QueueName, decode
from core.storage.local import LocalStorage
from internal import bootstrap
from internal.bootstrap import Application
from internal.services import dead_letters, publishing
from repositories import intents, parking
from repositories.claims import WakeUp
from repositories.jobs import Failure
from repositories.models import Chunk, Job, ParkedItem
from tests.contract import invariants, rows
from tests.integration.bad_engines import FINE, HANG
from tests.integration.test_consumer import (
    bad_audio,
    get_job,
    has_claimed_chunk,
    open_application,
    running_consumer,
    settings_for,
    submit_audio,
    wait_for_end,
)


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await true():
            await asyncio.sleep(0.02)


async def chunk_of(app: Application, job_id: str) -> Chunk:
    async with app.database.read() as session:
        return (await session.execute(select(Chunk).where(Chunk.job_id == job_id))).scalar_one()


async def test_waiting_longer_than_job_timeout_fails_no_job(tmp_path: Path) -> None:
    """A queue of hours, or a laptop that slept: the job is claimed before the scheduler looks at it."""
    async with open_application(settings_for(tmp_path)) as app, running_consumer(app):
        job_id = await submit_audio(app, bad_audio(HANG), tmp_path)
        await eventually(lambda: has_claimed_chunk(app))
        async with app.database.write() as session:
            long_ago = {"progressed_at": after(-100_000), "created_at": after(-100_000)}
            await session.execute(update(Job).values(long_ago))
        await bootstrap.maintenance(app).housekeep()
        assert (await get_job(app, job_id)).status == JobStatus.PROCESSING


async def test_working_longer_than_job_timeout_fails_the_job_without_a_retry(tmp_path: Path) -> None:
    async with open_application(settings_for(tmp_path, job_timeout_seconds=1)) as app, running_consumer(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(HANG), tmp_path))
    assert (job.status, job.error_code, job.retry_count) == (JobStatus.FAILED, "TIMEOUT", 0)


async def test_a_storage_outage_beyond_lease_and_job_timeout_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = asyncio.Event()
    down.set()
    get = LocalStorage.get_bytes

    async def fail_read(*arguments: Any) -> bytes:
        if down.is_set():
            raise StorageUnavailable
        return await get(*arguments)

    monkeypatch.setattr(LocalStorage, "get_bytes", fail_read)
    # preparing counts as well, and takes seconds on a busy machine
    async with (
        open_application(settings_for(tmp_path, lease_seconds=1, job_timeout_seconds=8)) as app,
        running_consumer(app),
    ):
        scheduler = bootstrap.scheduler(app)
        await scheduler.start()
        job_id = await submit_audio(app, bad_audio(FINE), tmp_path)
        await eventually(lambda: has_claimed_chunk(app))
        first = await chunk_of(app, job_id)
        start = time.monotonic()
        while time.monotonic() - start < 10:
            await invariants.check(app.database)
            await asyncio.sleep(0.2)
        now = await chunk_of(app, job_id)
        assert (now.holder, now.claim) == (first.holder, first.claim), "nothing was taken from the live holder"
        down.clear()
        assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED
        done = await chunk_of(app, job_id)
        await scheduler.stop()
    assert (done.lost, done.failures, done.attempts) == (0, 0, 1)


async def test_a_copy_of_a_running_message_is_acknowledged_without_effect(tmp_path: Path) -> None:
    """The broker connection broke: the message is delivered to another consumer while its holder is alive."""
    async with (
        open_application(settings_for(tmp_path, lease_seconds=3)) as app,
        running_consumer(app) as first_consumer,
    ):
        job_id = await submit_audio(app, bad_audio(HANG), tmp_path)
        await eventually(lambda: has_claimed_chunk(app))
        second_consumer = bootstrap.consumer(app, "other")
        message = publishing.transcribe_message(await get_job(app, job_id), WakeUp(job_id, 0, 0))
        before = await chunk_of(app, job_id)
        await second_consumer.pool.start()
        assert await second_consumer.handle(Delivery(message, redelivered=True)) == Ack()
        await second_consumer.pool.stop()
        now = await chunk_of(app, job_id)
        assert (now.claim, now.lost, now.holder) == (before.claim, 0, before.holder)
        assert now.due_at is not None
        assert now.worker_id == first_consumer.worker_id


async def test_a_cancelled_jobs_work_is_stopped(tmp_path: Path) -> None:
    """The slot is free after one renewal, before the chunk's deadline."""
    async with (
        open_application(settings_for(tmp_path, lease_seconds=1, worker_concurrency=1)) as app,
        running_consumer(app),
    ):
        hanging = await submit_audio(app, bad_audio(HANG), tmp_path)
        await eventually(lambda: has_claimed_chunk(app))
        good = await submit_audio(app, bad_audio(FINE), tmp_path)
        await app.services.jobs.cancel(hanging, "local")
        assert (await wait_for_end(app, good)).status == JobStatus.COMPLETED
        assert (await wait_for_end(app, hanging)).status == JobStatus.CANCELLED


async def test_one_bad_object_is_parked_and_the_others_are_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a hundred of them do not fill every batch."""
    delete = LocalStorage.delete_prefix

    async def one_fails(self: LocalStorage, prefix: str) -> None:
        if "/bad-" in prefix:
            raise StorageUnavailable  # as if an error of one object were an outage
        await delete(self, prefix)

    monkeypatch.setattr(LocalStorage, "delete_prefix", one_fails)
    job_id = "00000000-0000-4000-8000-000000000001"
    async with open_application(settings_for(tmp_path)) as app:
        async with app.database.write() as session:
            for number in range(101):
                await intents.create(session, f"uploads/{job_id}/bad-{number}", job_id, lifetime=-100)
            await intents.create(session, f"uploads/{job_id}/good", job_id, lifetime=-1)
        expired = await rows.new_job(app.database)
        async with app.database.write() as session:
            expired_values = {"status": JobStatus.COMPLETED, "due_at": None, "expires_at": after(-1)}
            await session.execute(update(Job).where(Job.job_id == expired).values(expired_values))
        for _ in range(2):
            await bootstrap.maintenance(app).housekeep()
        async with app.database.read() as session:
            left = await intents.list_expired(session, 200)
            assert await parking.count_by_step(session) == {"collect": 101}
            deleted_at = (await session.execute(select(Job.deleted_at).where(Job.job_id == expired))).scalar_one()
        assert len(left) == 101
        assert deleted_at is not None, "the later steps ran"
        monkeypatch.setattr(LocalStorage, "delete_prefix", delete)
        async with app.database.write() as session:
            await session.execute(update(ParkedItem).values(until=after(-1)))
        for _ in range(2):
            await bootstrap.maintenance(app).housekeep()
        async with app.database.read() as session:
            assert await intents.list_expired(session) == []
            assert await parking.count_by_step(session) == {}


async def test_one_bad_row_does_not_stop_what_is_due(tmp_path: Path) -> None:
    async with open_application(settings_for(tmp_path)) as app:
        assert isinstance(app.broker, MemoryBroker)
        bad, good = await rows.new_job(app.database), await rows.new_job(app.database)
        async with app.database.write() as session:
            await session.execute(update(Job).where(Job.job_id == bad).values(priority="none of ours"))
            await session.execute(update(Job).values(due_at=after(-1)))
        await bootstrap.maintenance(app).publish_due()
        assert [decode(body).job_id for body, _ in app.broker.waiting(QueueName.JOBS)] == [good]
        async with app.database.read() as session:
            assert await parking.count_by_step(session) == {"publish": 1}
        row = await get_job(app, bad)
        assert row.publishes == 0
        assert row.due_at is not None


async def test_one_failing_dead_letter_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_application(settings_for(tmp_path)) as app:
        assert isinstance(app.broker, MemoryBroker)
        bad, good = await rows.new_job(app.database), await rows.new_job(app.database)
        async with app.database.write() as session:
            failed = {"status": JobStatus.FAILED, "replay_token": "token"}
            await session.execute(update(Job).values(due_at=after(-2), **failed))
            await session.execute(update(Job).where(Job.job_id == good).values(due_at=after(-1)))
        headers = dead_letters.dead_letter_headers

        def of_the_good_one(job: Job, failure: Failure) -> dict[str, Any]:
            if job.job_id == bad:
                raise ValueError(bad)
            return headers(job, failure)

        monkeypatch.setattr(dead_letters, "dead_letter_headers", of_the_good_one)
        await bootstrap.maintenance(app).publish_due()
        assert [decode(body).job_id for body, _ in app.broker.waiting(QueueName.DEAD)] == [good]
        assert (await get_job(app, bad)).due_at is not None


async def test_a_refused_publish_ends_the_round_and_is_repeated_in_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def refuse(self: MemoryBroker, message: Message, **_: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise BrokerUnavailable

    async with open_application(settings_for(tmp_path)) as app:
        job_ids = [await rows.new_job(app.database) for _ in range(5)]
        async with app.database.write() as session:
            await session.execute(update(Job).values(due_at=after(-1)))
        with monkeypatch.context() as patch:
            patch.setattr(MemoryBroker, "publish", refuse)
            for _ in range(20):
                await bootstrap.maintenance(app).publish_due()
        assert attempts == 1, "five seconds have not passed"
        found = [await get_job(app, job_id) for job_id in job_ids]
        assert {row.publishes for row in found} == {0}
        await app.broker.stop()
        async with app.database.write() as session:
            await session.execute(update(Job).values(due_at=after(-1)))
        with pytest.raises(BrokerUnavailable):
            await bootstrap.maintenance(app).publish_due()
        await app.broker.start()
        await bootstrap.maintenance(app).publish_due()
        assert sum(queue.ready for queue in await app.broker.stats()) == len(job_ids)
        assert {(await get_job(app, job_id)).publishes for job_id in job_ids} == {1}
