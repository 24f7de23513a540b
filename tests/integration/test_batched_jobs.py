"""Chunks of several jobs in one batch of a consumer's engine process: each job has its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from core.domain.job import JobStatus, Priority
from core.domain.job_options import JobOptions
from internal.bootstrap import Application
from internal.consumer.runtime import Consumer
from internal.services.submit_options import SubmitOptions
from repositories.models import Job
from tests.contract import invariants, rows
from tests.engine_processes import process_ids
from tests.integration.bad_engines import CRASH, FINE, GATE, HANG
from tests.integration.test_consumer import bad_audio, open_application, running_consumer, settings_for, wait_for_end
from tests.speech import write_wav

BATCH = 4
SECONDS = 30.0


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    settings = settings_for(tmp_path, worker_concurrency=1, batch_size=BATCH, prepare_concurrency=4, lease_seconds=1)
    async with open_application(settings) as app:
        yield app


async def submit(app: Application, command: int, folder: Path, gate: str = "gate") -> str:
    """Create a job whose engine waits for the file `gate` in the folder if the command is GATE."""
    intake = app.services.submissions.new_upload()
    await intake.begin("speech.wav")
    await intake.write(write_wav(folder / "speech.wav", bad_audio(command)).read_bytes())
    await intake.finish()
    options = SubmitOptions("en", "demo-q5_0", Priority.NORMAL, options=JobOptions(prompt=str(folder / gate)))
    return (await app.services.submissions.create_from_upload(intake, "local", options)).job_id


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def running_calls(consumer: Consumer) -> list[int]:
    return [len(batch) for batch in consumer.pool._running.values()]


async def run_as_batch(app: Application, consumer: Consumer, commands: list[int], folder: Path) -> list[str]:
    """Run jobs as one batch, which forms behind a job that holds the only process; return their ids."""
    await submit(app, GATE, folder)
    await eventually(lambda: running_calls(consumer) == [1])
    submitted = [await submit(app, command, folder, "second gate") for command in commands]
    await eventually(lambda: len(consumer.pool._waiting) == len(commands))
    (folder / "gate").touch()
    return submitted


async def outcomes(app: Application, job_ids: list[str]) -> list[tuple[str, str | None, int, int]]:
    """Wait for the jobs; return each one's status, error, retries, and attempts of its chunk."""
    jobs: list[Job] = [await wait_for_end(app, job_id) for job_id in job_ids]
    chunks = [await rows.chunk(app.database, job_id, 0) for job_id in job_ids]
    return [
        (job.status, job.error_code, job.retry_count, chunk.attempts) for job, chunk in zip(jobs, chunks, strict=True)
    ]


async def test_a_chunk_that_crashes_its_batch_fails_no_other_job(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app) as consumer:
        jobs = await run_as_batch(app, consumer, [FINE, CRASH, FINE], tmp_path)
        first, bad, third = await outcomes(app, jobs)
    assert first == third == (JobStatus.COMPLETED, None, 0, 1)
    assert bad == (JobStatus.FAILED, "WORKER_CRASH", 3, 4)


async def test_a_cancelled_job_of_a_batch_stops_no_other(app: Application, tmp_path: Path) -> None:
    """Its work ends with the next renewal of its lease, and the process keeps working."""
    async with running_consumer(app) as consumer:
        [child] = await process_ids(consumer.pool)
        jobs = await run_as_batch(app, consumer, [GATE, GATE, GATE], tmp_path)
        await eventually(lambda: running_calls(consumer) == [3])
        await eventually(lambda: consumer.pool._slots.taken == 3)
        await app.services.jobs.cancel(jobs[1], "local")
        await eventually(lambda: consumer.pool._slots.taken == 2)
        (tmp_path / "second gate").touch()
        first, cancelled, third = await outcomes(app, jobs)
        assert await process_ids(consumer.pool) == [child]
    assert first == third == (JobStatus.COMPLETED, None, 0, 1)
    assert cancelled[0] == JobStatus.CANCELLED


async def test_a_shutdown_hands_back_all_chunks_of_a_batch(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app) as consumer:
        jobs = await run_as_batch(app, consumer, [HANG, FINE, FINE], tmp_path)
        await eventually(lambda: running_calls(consumer) == [3])
    await invariants.check(app.database)
    for job_id in jobs:
        chunk = await rows.chunk(app.database, job_id, 0)
        assert (chunk.status, chunk.holder, chunk.failures, chunk.lost) == (JobStatus.PENDING, None, 0, 0)


async def test_a_consumer_takes_as_many_messages_as_it_has_slots(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app) as consumer:
        for _ in range(BATCH + 2):
            await submit(app, GATE, tmp_path)
        await eventually(lambda: sum(running_calls(consumer)) + len(consumer.pool._waiting) == BATCH)
        chunks = [row for row in await app.broker.stats() if row.name == "stt_chunks"]
        assert [row.unacked for row in chunks] == [BATCH]
        (tmp_path / "gate").touch()
