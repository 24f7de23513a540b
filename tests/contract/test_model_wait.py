"""Time for which no consumer has had a job's model file, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from core.database import Database, after
from core.domain.job_options import JobOptions
from core.errors import ModelMissingError, ObjectDamagedError, SttError
from repositories import failures, model_wait, workers
from repositories.claims import WakeUp
from repositories.models import Job, Worker
from repositories.workers import WorkerInfo
from tests.contract import invariants
from tests.contract.rows import chunk, job, new_job, planned_job, run_chunk

OURS, OTHER = "a" * 64, "b" * 64


async def announce(
    database: Database, name: str = "w", models: tuple[str, ...] = (), checksums: Any = None, age: float = 7200
) -> Worker:
    async with database.write() as session:
        found = await workers.heartbeat(session, WorkerInfo(name, workers.CONSUMER, "h", 1, "v", 1, models, checksums))
        await session.execute(update(Worker).where(Worker.worker_id == name).values(started_at=after(-age)))
    return found


async def pinned_job(database: Database, sha256: str | None = OURS, **changes: Any) -> str:
    """Create a planned job whose model file is `demo-q5_0` with this checksum."""
    job_id = await planned_job(database, 2, **changes)
    async with database.write() as session:
        options = JobOptions(file_sha256=sha256 or "")
        await session.execute(update(Job).where(Job.job_id == job_id).values(options=options))
    return job_id


async def missing(database: Database, job_id: str, default: str | None = None) -> float | None:
    found = await job(database, job_id)
    async with database.write() as session:
        return await model_wait.seconds_missing(session, found, default)


async def since(database: Database, job_id: str, seconds: float) -> None:
    async with database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(model_missing_since=after(-seconds)))


async def test_the_wait_starts_when_the_file_is_first_missed(database: Database) -> None:
    await announce(database, models=("other",))
    job_id = await pinned_job(database)
    first = await missing(database, job_id)
    assert first is not None
    assert first < 60
    await since(database, job_id, 500)
    later = await missing(database, job_id)
    assert later is not None
    assert 500 <= later < 560


async def test_time_without_any_consumer_does_not_count(database: Database) -> None:
    """After a night without any consumer, the one with the file may start a minute after the one without."""
    job_id = await pinned_job(database)
    await since(database, job_id, 50_000)
    assert await missing(database, job_id) == 0
    await announce(database, models=("other",), age=10)
    found = await missing(database, job_id)
    assert found is not None
    assert found < 100


@pytest.mark.parametrize(
    ("models", "checksums", "has"),
    [
        (("demo-q5_0",), {"demo-q5_0": [OURS]}, True),
        (("demo-q5_0",), {"demo-q5_0": [OTHER, OURS]}, True),
        (("demo-q5_0",), {"demo-q5_0": [OTHER]}, False),
        (("demo-q5_0",), {}, True),
        (("demo-q5_0",), None, True),
        (("demo-q8_0",), {"demo-q8_0": [OURS]}, False),
        ((), {}, False),
    ],
    ids=["it", "it among others", "another file of its name", "not read yet", "an older version", "another name", "no"],
)
async def test_a_planned_job_needs_exactly_its_file(
    database: Database, models: tuple[str, ...], checksums: dict[str, list[str]] | None, has: bool
) -> None:
    worker = await announce(database, models=models, checksums=checksums)
    job_id = await pinned_job(database)
    assert (await missing(database, job_id) is None) == has
    await since(database, job_id, 500)
    async with database.write() as session:
        await model_wait.mark_available(session, worker)
    assert ((await job(database, job_id)).model_missing_since is None) == has


@pytest.mark.parametrize(
    ("requested", "model", "default", "models", "has"),
    [
        ("medium", "medium", None, ("medium-q5_0",), True),
        ("medium", "medium-q8_0", None, ("medium-q5_0",), True),
        ("medium-q8_0", "medium-q8_0", None, ("medium-q5_0",), False),
        ("medium", "medium", None, ("medium.en",), True),
        ("large", "large", None, ("large-v3-q5_0",), True),
        ("large-q5_0", "large-q5_0", None, ("large-v3-q5_0",), True),
        ("", "demo-q5_0", None, ("tiny",), True),
        ("", "demo-q5_0", "small", ("tiny",), False),
        ("", None, None, (), False),
        (None, "medium", None, ("medium-q5_0",), True),
        (None, "medium", None, ("tiny",), False),
    ],
)
async def test_a_job_without_a_plan_needs_a_file_of_the_requested_model(
    database: Database,
    requested: str | None,
    model: str | None,
    default: str | None,
    models: tuple[str, ...],
    has: bool,
) -> None:
    await announce(database, models=models)
    job_id = await new_job(database, model=model, asked_model=requested)
    assert (await missing(database, job_id, default) is None) == has


async def test_a_busy_consumer_with_the_file_ends_the_wait(database: Database) -> None:
    await announce(database, "right", ("demo-q5_0",), {"demo-q5_0": [OURS]})
    for number in range(3):
        await announce(database, f"wrong-{number}")
    job_id = await pinned_job(database)
    await since(database, job_id, 50_000)
    assert await missing(database, job_id) is None
    async with database.write() as session:
        await session.execute(update(Worker).where(Worker.worker_id == "right").values(heartbeat_at=after(-60)))
    assert (await missing(database, job_id) or 0) < 60, "the wait begins again when that consumer is dead"


async def fail_job(database: Database, job_id: str, error: SttError) -> None:
    async with database.write() as session:
        assert await failures.fail_job(session, job_id, error, "token")


async def retry_job(database: Database, job_id: str) -> list[WakeUp]:
    async with database.write() as session:
        wake_ups = await failures.retry_job(session, job_id, "local")
    assert wake_ups is not None
    await invariants.check(database)
    return wake_ups


@pytest.mark.parametrize("error", [ModelMissingError(), ObjectDamagedError()], ids=lambda error: error.code)
async def test_a_retry_makes_a_new_plan(database: Database, error: SttError) -> None:
    job_id = await pinned_job(database, asked_model="demo")
    path = (await job(database, job_id)).working_audio_path
    await fail_job(database, job_id, error)
    assert await retry_job(database, job_id) == [WakeUp(job_id, None, 0)]
    found = await job(database, job_id)
    assert (found.chunks_total, found.plan, found.working_audio_path, found.model) == (None, None, None, "demo")
    assert path is not None


async def test_a_retry_keeps_finished_chunks_if_the_file_is_back(database: Database) -> None:
    await announce(database, models=("demo-q5_0",), checksums={"demo-q5_0": [OURS]})
    job_id = await pinned_job(database)
    await run_chunk(database, job_id, 0)
    await fail_job(database, job_id, ModelMissingError())
    assert await retry_job(database, job_id) == [WakeUp(job_id, 1, 0)]
    assert (await chunk(database, job_id, 0)).status == "COMPLETED"


async def test_a_retry_starts_over_if_the_file_is_gone(database: Database) -> None:
    """Two models in one transcript would be worse than repeated work."""
    await announce(database, models=("demo-q5_0",), checksums={"demo-q5_0": [OTHER]})
    job_id = await pinned_job(database)
    await run_chunk(database, job_id, 0)
    await fail_job(database, job_id, ModelMissingError())
    assert await retry_job(database, job_id) == [WakeUp(job_id, None, 0)]
    assert (await job(database, job_id)).chunks_completed == 0
