"""A consumer in this process, on the embedded stores: faults at its steps, and the outcome of the job."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from core.config import Settings, load_settings
from core.database import after
from core.domain.job import JobStatus, Priority
from core.errors import BrokerUnavailable, DatabaseUnavailable, SettingsError, StorageUnavailable
from core.messaging.memory import MemoryBroker
from core.messaging.port import Message, MessageType, QueueName, decode
from internal import bootstrap
from internal.bootstrap import Application
from internal.consumer.runtime import Consumer
from internal.outage_retry import OutageRetry
from internal.periodic_tasks import PeriodicTasks
from internal.services import publishing
from internal.services.submit_options import SubmitOptions
from repositories import intents, jobs
from repositories.claims import WakeUp
from repositories.models import Chunk, Job, Metric, UploadIntent
from tests.contract import invariants
from tests.contract.databases import upgrade
from tests.integration.bad_engines import CRASH, FINE, HANG, KILL
from tests.speech import Audio, recording, silence, write_wav

ENDED = 40.0


def settings_for(folder: Path, **more: Any) -> Settings:
    values: dict[str, Any] = {
        "data_dir": folder / "data",
        "temp_dir": folder / "tmp",
        "worker_concurrency": 2,
        "engine": "tests.integration.bad_engines",
        "retry_delay_seconds": 0.1,
        "retry_backoff_multiplier": 1.5,
        "retry_jitter": False,
        **more,
    }
    return load_settings(_env_file=None, **values)


@contextlib.asynccontextmanager
async def open_application(settings: Settings) -> AsyncIterator[Application]:
    app = bootstrap.build(settings)
    await upgrade(app.database)
    await app.storage.start()
    await app.broker.start()
    try:
        yield app
    finally:
        await app.stop()


@contextlib.asynccontextmanager
async def running_consumer(app: Application) -> AsyncIterator[Consumer]:
    consumer = bootstrap.consumer(app)
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop(grace=0)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    async with open_application(settings_for(tmp_path)) as app:
        yield app


async def submit_audio(app: Application, audio: Audio, folder: Path, language: str = "en") -> str:
    """Create a job as the API does."""
    intake = app.services.submissions.new_upload()
    await intake.begin("speech.wav")
    await intake.write(write_wav(folder / "speech.wav", audio).read_bytes())
    await intake.finish()
    submit_options = SubmitOptions(language, "demo-q5_0", Priority.NORMAL)
    return (await app.services.submissions.create_from_upload(intake, "local", submit_options)).job_id


async def wait_for_end(app: Application, job_id: str) -> Job:
    """Wait until the job has ended, checking the invariants meanwhile."""
    async with asyncio.timeout(ENDED):
        while True:
            await invariants.check(app.database)
            async with app.database.read() as session:
                job = await jobs.get(session, job_id)
            assert job is not None
            if JobStatus(job.status).terminal:
                return job
            await asyncio.sleep(0.02)


def bad_audio(kind: int, seconds: float = 3) -> Audio:
    """Return audio whose first sample selects the bad engine's behaviour and which is too loud to be silence."""
    audio = silence(seconds) + 3000
    audio[0] = kind
    return audio


async def test_repeated_crashes_fail_the_job_only(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app):
        bad = await submit_audio(app, bad_audio(CRASH), tmp_path)
        good = await submit_audio(app, bad_audio(FINE), tmp_path)
        assert (await wait_for_end(app, good)).status == JobStatus.COMPLETED
        job = await wait_for_end(app, bad)
    assert (job.status, job.error_code, job.retry_count) == (JobStatus.FAILED, "WORKER_CRASH", 3)
    async with app.database.read() as session:
        chunk = (await session.execute(select(Chunk).where(Chunk.job_id == bad))).scalar_one()
    assert (chunk.attempts, chunk.failures, chunk.status) == (4, 4, JobStatus.FAILED)


async def test_a_dead_letter_describes_the_failure_and_reopens_the_job(app: Application, tmp_path: Path) -> None:
    assert isinstance(app.broker, MemoryBroker)
    async with running_consumer(app):
        job_id = await submit_audio(app, bad_audio(CRASH), tmp_path)
        await wait_for_end(app, job_id)
        async with asyncio.timeout(10):
            while not app.broker.waiting(QueueName.DEAD):
                await asyncio.sleep(0.02)
        [(body, headers)] = app.broker.waiting(QueueName.DEAD)
        assert headers["job"] == job_id
        assert (headers["chunk"], headers["attempts"], headers["code"]) == (0, 4, "WORKER_CRASH")
        assert headers["first_failure"] <= headers["last_failure"]
        dead_letter = decode(body)
        assert dead_letter.type is MessageType.REPLAY
        for _ in range(2):
            await app.broker.publish_raw(QueueName.CHUNKS, body)
        async with asyncio.timeout(10):
            while (await get_job(app, job_id)).replay_token == dead_letter.token:
                await asyncio.sleep(0.01)
        replayed = await wait_for_end(app, job_id)
    assert replayed.status == JobStatus.FAILED
    assert replayed.retry_count == 6, "replayed once, not twice"


async def get_job(app: Application, job_id: str) -> Job:
    async with app.database.read() as session:
        job = await jobs.get(session, job_id)
    assert job is not None
    return job


async def test_a_chunk_out_of_memory_is_retried_in_halves(app: Application, tmp_path: Path) -> None:
    """The bad engine is killed by the first sample; so is the first half on the retry, and the job fails."""
    async with running_consumer(app) as consumer:
        job_id = await submit_audio(app, bad_audio(KILL), tmp_path)
        job = await wait_for_end(app, job_id)
        assert consumer.pool.slots == 2
    assert (job.status, job.error_code) == (JobStatus.FAILED, "OUT_OF_MEMORY")


async def test_a_hanging_chunk_ends_at_its_deadline(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, chunk_timeout_seconds=0.3, max_retries=1)
    async with open_application(settings) as app, running_consumer(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(HANG), tmp_path))
    assert (job.status, job.error_code, job.retry_count) == (JobStatus.FAILED, "TIMEOUT", 1)


async def test_a_lost_wake_up_is_published_by_the_scheduler(app: Application, tmp_path: Path) -> None:
    await app.broker.stop()
    job_id = await submit_audio(app, bad_audio(FINE), tmp_path)
    await app.broker.start()
    async with app.database.write() as session:
        await session.execute(update(Job).values(due_at=after(-1)))
    async with running_consumer(app):
        await bootstrap.maintenance(app).publish_due()
        assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED


async def test_duplicates_change_nothing(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app):
        job_id = await submit_audio(app, recording("en", 30, 1)[0], tmp_path)
        job = await get_job(app, job_id)
        for index in range(5):
            for _ in range(5):
                await app.broker.publish(publishing.transcribe_message(job, WakeUp(job_id, index, 0)))
                await app.broker.publish(publishing.prepare_message(job, WakeUp(job_id, None, 0)))
                await app.broker.publish(publishing.finalise_message(job, WakeUp(job_id, None, 0)))
        finished_job = await wait_for_end(app, job_id)
    assert finished_job.status == JobStatus.COMPLETED
    async with app.database.read() as session:
        statement = select(Metric.metric_value).where(Metric.metric_name == "chunk_seconds")
        assert len((await session.execute(statement)).all()) == finished_job.chunks_total
        totals = select(Metric).where(Metric.metric_name == "total_seconds")
        assert len((await session.execute(totals)).all()) == 1


@pytest.mark.parametrize(("language", "asked"), [("en", ["en", "en", "en"]), ("auto", ["auto", "vi", "vi"])])
async def test_the_language_is_detected_once_and_only_if_not_given(
    tmp_path: Path, language: str, asked: list[str]
) -> None:
    """The first chunk of an `auto` job decides for all; a given language is not detected."""
    settings = settings_for(
        tmp_path,
        engine="tests.integration.detecting_engine",
        chunk_strategy="fixed_size",
        chunk_duration_seconds=10,
        chunk_overlap_seconds=0,
    )
    async with open_application(settings) as app, running_consumer(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE, 29), tmp_path, language))
        async with app.database.read() as session:
            texts = (await session.execute(select(Chunk.transcription).order_by(Chunk.chunk_index))).scalars().all()
    assert job.status == JobStatus.COMPLETED
    assert job.detected_language == asked[-1]
    assert [segment["text"] for segments in texts for segment in segments or []] == asked


async def test_messages_for_unknown_jobs_are_dropped(app: Application) -> None:
    async with running_consumer(app) as consumer:
        for kind in MessageType:
            message = Message(kind, "00000000-0000-4000-8000-00000000000a", 0, token="t", model="demo-q5_0")
            await app.broker.publish(replace(message))
        async with asyncio.timeout(10):
            while any(row.ready + row.unacked for row in (await app.broker.stats())[:2]):
                await asyncio.sleep(0.02)
        assert consumer.workspace.path.exists()


async def test_a_missing_upload_fails_the_job_with_a_reason(app: Application, tmp_path: Path) -> None:
    job_id = await submit_audio(app, bad_audio(FINE), tmp_path)
    await app.storage.delete_prefix(f"uploads/{job_id}/")
    async with running_consumer(app):
        job = await wait_for_end(app, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "SOURCE_NOT_FOUND")


async def test_shutdown_hands_running_work_back(tmp_path: Path) -> None:
    async with open_application(settings_for(tmp_path)) as app:
        async with running_consumer(app):
            job_id = await submit_audio(app, bad_audio(HANG), tmp_path)
            async with asyncio.timeout(20):
                while not await has_claimed_chunk(app):
                    await asyncio.sleep(0.02)
        await invariants.check(app.database)
        async with app.database.read() as session:
            chunk = (await session.execute(select(Chunk).where(Chunk.job_id == job_id))).scalar_one()
        assert (chunk.holder, chunk.failures, chunk.lost, chunk.status) == (None, 0, 0, JobStatus.PENDING)


async def has_claimed_chunk(app: Application) -> bool:
    async with app.database.read() as session:
        return (await session.execute(select(Chunk).where(Chunk.holder.is_not(None)))).first() is not None


async def test_expired_intents_are_collected_with_their_objects(app: Application) -> None:
    key = "uploads/00000000-0000-4000-8000-000000000001/a.wav"
    await app.storage.put_bytes(key, b"x")
    async with app.database.write() as session:
        await intents.create(session, key, "00000000-0000-4000-8000-000000000001", lifetime=-1)
    await bootstrap.maintenance(app).housekeep()
    assert await app.storage.stat(key) is None
    async with app.database.read() as session:
        assert (await session.execute(select(UploadIntent))).first() is None


async def test_invalid_names_prevent_the_start(tmp_path: Path) -> None:
    for name, value in (("chunk_strategy", "magic"), ("engine", "magic")):
        app = bootstrap.build(settings_for(tmp_path, **{name: value}))
        with pytest.raises(SettingsError, match=name.upper()):
            bootstrap.consumer(app)
        await app.stop()


# -- the consumer's building blocks -----------------------------------------------------------------------------------
async def test_outage_retry_waits_and_holds_new_work_back() -> None:
    outage_retry, calls = OutageRetry(), 0

    async def down_twice() -> str:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise StorageUnavailable
        return "up"

    task = asyncio.create_task(outage_retry.run(down_twice))
    await asyncio.sleep(0.05)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await outage_retry.ready()
    assert await task == "up"
    await outage_retry.ready()


async def test_outage_retry_gives_up() -> None:
    async def down() -> None:
        raise DatabaseUnavailable

    outage_retry = OutageRetry(max_wait=0.1)
    with pytest.raises(DatabaseUnavailable):
        await outage_retry.run(down)
    await outage_retry.ready()


async def test_side_tasks_survive_errors() -> None:
    rounds = 0
    enough = asyncio.Event()

    async def step() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            raise BrokerUnavailable
        if rounds == 2:
            raise RuntimeError("a bug")
        enough.set()

    tasks = PeriodicTasks()
    tasks.start(0.01, step, "rounds")
    async with asyncio.timeout(5):
        await enough.wait()
    await tasks.stop()
    await tasks.stop()


async def test_new_work_continues_while_the_ping_succeeds() -> None:
    """One operation fails while the ping succeeds: only that operation waits, and only briefly."""
    down = asyncio.Event()

    async def ping() -> None:
        if down.is_set():
            raise StorageUnavailable

    async def fails() -> None:
        raise StorageUnavailable

    outage_retry = OutageRetry(max_wait=60, pings={StorageUnavailable: ping})
    task = asyncio.create_task(outage_retry.run(fails))
    for _ in range(20):
        await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await outage_retry.ready()
    down.set()
    async with asyncio.timeout(20):
        while outage_retry._available.is_set():
            await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await outage_retry.ready()


async def test_a_single_failing_operation_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("internal.outage_retry.MAX_WAIT_REACHABLE", 0.1)

    async def ping() -> None:
        return

    async def fails() -> None:
        raise StorageUnavailable

    async with asyncio.timeout(30):
        with pytest.raises(StorageUnavailable):
            await OutageRetry(max_wait=3600, pings={StorageUnavailable: ping}).run(fails)
