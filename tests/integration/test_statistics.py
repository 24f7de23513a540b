"""Statistics of the API and samples of the scheduler: queues by priority, on both databases, and during outages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import update

from core.config import load_settings
from core.database import after
from core.domain.job import Priority
from core.errors import BrokerUnavailable, DatabaseUnavailable
from core.messaging.port import QueueName
from internal import bootstrap
from internal.api.app import create_app
from internal.bootstrap import Application
from internal.scheduler.sampler import Sampler
from migrations.run import upgrade
from repositories import workers
from repositories.models import Job
from tests.contract.rows import claim, new_job, planned_job


@pytest.fixture
async def app(database_url: str, tmp_path: Path) -> AsyncIterator[Application]:
    settings = load_settings(_env_file=None, data_dir=tmp_path / "data", database_url=database_url)
    app = bootstrap.build(settings)
    await upgrade(app.database)
    await app.storage.start()
    await app.broker.start()
    yield app
    await app.stop()


async def fill(app: Application) -> None:
    """Add a job of each priority; one of high priority has three chunks, of which one runs; it waits for 100 s."""
    for priority in Priority:
        await new_job(app.database, priority=priority)
    job_id = await planned_job(app.database, 3, priority=Priority.HIGH)
    assert await claim(app.database, job_id, 0)
    async with app.database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(progressed_at=after(-100)))
        await workers.heartbeat(session, workers.WorkerInfo("w", workers.CONSUMER, "host", 1, "1", 4, ("demo",)))


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_queues_are_reported_by_priority(app: Application) -> None:
    await fill(app)
    transport = httpx.ASGITransport(create_app(app.settings, app.services))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        report = (await client.get("/api/v1/stats")).json()
    queues = {queue["name"]: queue for queue in report["queues"]}
    chunks = {row["priority"]: row for row in queues["stt_chunks"]["priorities"]}
    assert (chunks["high"]["waiting"], chunks["high"]["running"]) == (2, 1)
    assert 100 <= chunks["high"]["oldest_seconds"] < 160
    assert chunks["low"] == {"priority": "low", "waiting": 0, "running": 0, "put_off": 0, "oldest_seconds": 0.0}
    assert queues["stt_chunks"]["unacked"] == 1
    assert [row["waiting"] for row in queues["stt_jobs"]["priorities"]] == [1, 1, 1]
    assert [row["waiting"] for row in queues["stt_jobs_dlq"]["priorities"]] == [0, 0, 0]


async def test_figures_are_sampled_from_the_stores(app: Application) -> None:
    await fill(app)
    await Sampler(app.database, app.broker, app.storage).sample()
    assert value("stt_jobs", status="PENDING") == 3
    assert value("stt_jobs", status="PROCESSING") == 1
    assert value("stt_chunks_left") == 3
    assert value("stt_queue_rows", queue="stt_chunks", priority="high", state="running") == 1
    assert value("stt_queue_rows", queue="stt_chunks", priority="low", state="waiting") == 0
    assert (value("stt_queue_oldest_seconds", queue="stt_chunks", priority="high") or 0) >= 100
    assert value("stt_queue_messages", queue=QueueName.DEAD.value) == 0
    assert (value("stt_workers", state="healthy"), value("stt_workers", state="sick")) == (1, 0)
    assert value("stt_worker_slots") == 4


async def test_figures_of_a_dependency_that_is_down_are_withdrawn(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = Sampler(app.database, app.broker, app.storage)
    await sampler.sample()

    def down(*_: object) -> None:
        raise DatabaseUnavailable

    async def refusing() -> None:
        raise BrokerUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(app.database, "read", down)
        patched.setattr(app.broker, "stats", refusing)
        await sampler.sample()
    assert value("stt_jobs", status="PENDING") is None
    assert value("stt_queue_messages", queue="stt_jobs") is None
    assert [value("stt_dependency_up", dependency=name) for name in ("database", "broker", "storage")] == [0, 0, 1]
    await sampler.sample()
    assert value("stt_jobs", status="PENDING") == 0
    assert value("stt_dependency_up", dependency="database") == 1
