"""Processes die at the worst moment; the job completes, and no finished chunk is transcribed again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select

from core.database import Database
from repositories.models import Chunk, Metric
from tests.contract import invariants
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.servers.base import Server, wait_until
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ
from tests.speech import encode, recording, word_error_rate

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(300)]


@pytest.fixture
def service(
    tmp_path: Path, postgres_server: Postgres, rabbitmq_server: RabbitMQ, minio_server: Minio
) -> Iterator[Service]:
    """A service of its own on the real parts, one slot, so that a recording takes a while."""
    stores = services.stores_of(postgres_server, rabbitmq_server, minio_server) | {"WORKER_CONCURRENCY": "1"}
    with services.on_real_parts(tmp_path, stores) as service:
        yield service


@pytest.fixture
def long(tmp_path: Path) -> tuple[Path, str]:
    """Three minutes and what is said in them."""
    sound, reference = recording("en", 48, seed=71)
    return encode(sound, tmp_path / "long.flac"), reference


def started(service: Service, long: tuple[Path, str]) -> str:
    """Upload, and wait until some chunks are finished and others are not."""
    job_id = service.upload(long[0], language="en")
    wait_until(lambda: service.status(job_id)["chunks_completed"] >= 1, "a chunk is finished", 60)
    return job_id


def whole(service: Service, job_id: str, long: tuple[Path, str]) -> None:
    """The job completes with every word, each chunk committed once, and the rows are consistent."""
    state = service.wait(job_id, 120)
    assert state["status"] == "COMPLETED", f"{state}\n{service.logs()}"
    text = service.client.get(f"/api/v1/result/{job_id}").json()["text"]
    assert word_error_rate(long[1], text) <= 2.5
    committed, total = asyncio.run(rows(service, job_id))
    assert committed == total == state["chunks_total"]


async def rows(service: Service, job_id: str) -> tuple[int, int]:
    """Committed transcriptions (a metric row each) and chunks of the job."""
    database = Database(service.environment["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"))
    await invariants.check(database)
    async with database.read() as session:
        metrics = select(func.count()).where(Metric.job_id == job_id, Metric.metric_name == "chunk_seconds")
        chunks = select(func.count()).where(Chunk.job_id == job_id)
        found = (await session.execute(metrics)).scalar_one(), (await session.execute(chunks)).scalar_one()
    await database.stop()
    return found


def test_a_killed_consumer_is_replaced_and_leaves_no_process(service: Service, long: tuple[Path, str]) -> None:
    job_id = started(service, long)
    children = list(psutil.Process(service.processes["consumer"].pid).children(recursive=True))
    service.kill("consumer")
    assert children
    wait_until(lambda: not any(child.is_running() for child in children), "no child is left", 15)
    service.start("consumer-2", "consumer")
    whole(service, job_id, long)
    assert len(list((service.folder / "tmp").iterdir())) == 1, "the killed consumer's folder is still there"


def test_a_stopped_consumer_hands_back_and_signs_off(service: Service, long: tuple[Path, str]) -> None:
    job_id = started(service, long)
    process = service.processes.pop("consumer")
    process.terminate()
    process.terminate()
    assert process.wait(40) == 0
    service.start("consumer-2", "consumer")
    whole(service, job_id, long)


def test_the_broker_is_killed_mid_job(service: Service, long: tuple[Path, str], rabbitmq_server: RabbitMQ) -> None:
    if not isinstance(rabbitmq_server, Server):
        pytest.skip("not ours to stop")
    job_id = started(service, long)
    rabbitmq_server.kill()
    accepted = service.upload(long[0], language="en")
    rabbitmq_server.start()
    whole(service, job_id, long)
    whole(service, accepted, long)


def test_the_database_is_killed_mid_job(service: Service, long: tuple[Path, str], postgres_server: Postgres) -> None:
    if not isinstance(postgres_server, Server):
        pytest.skip("not ours to stop")
    job_id = started(service, long)
    postgres_server.kill()
    answer = service.client.get(f"/api/v1/status/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert service.client.get("/live").status_code == 200
    postgres_server.start()
    whole(service, job_id, long)


def test_the_storage_is_killed_mid_job(service: Service, long: tuple[Path, str], minio_server: Minio) -> None:
    if not isinstance(minio_server, Server):
        pytest.skip("not ours to stop")
    job_id = started(service, long)
    minio_server.kill()
    with long[0].open("rb") as file:
        answer = service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    minio_server.start()
    whole(service, job_id, long)


def test_a_killed_api_answers_again(service: Service, long: tuple[Path, str]) -> None:
    job_id = started(service, long)
    service.kill("api")
    service.start("api-2", "api")
    service.wait_ready()
    whole(service, job_id, long)


def test_a_dead_letter_is_triaged_by_command(service: Service, tmp_path: Path) -> None:
    """A recording that fails leaves a letter; replayed by command it fails again, once; purged it is gone."""
    path = tmp_path / "text.mp3"
    path.write_bytes(b"no sound at all " * 1000)
    job_id = service.upload(path)
    assert service.wait(job_id)["status"] == "FAILED"

    def stt(*words: str) -> str:
        call = [sys.executable, "-m", "internal.cli.main", "dlq", *words]
        environment = {**service.environment, "COLUMNS": "300"}
        done = subprocess.run(call, env=environment, cwd=services.ROOT, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    wait_until(lambda: job_id in stt("list"), "the letter is there", 20)
    assert "INVALID_AUDIO" in stt("show", job_id)
    assert "1 reopened" in stt("replay", job_id)
    wait_until(lambda: job_id in stt("list"), "it failed again", 30)
    assert "1 dead letters removed" in stt("purge", "all")
    assert "No dead letters" in stt("list")
    assert "No dead letter of job" in stt("show", job_id)
    assert service.status(job_id)["status"] == "FAILED"
