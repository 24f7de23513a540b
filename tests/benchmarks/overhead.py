"""Overhead of an idle service over the engine's own time, from the first byte of the submit to COMPLETED.

The engine uses one thread, so that its CPU time, which is subtracted, is its elapsed time.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
from sqlalchemy import select

from core.database import Database
from repositories.models import Metric
from tests.benchmarks.table import Row
from tests.e2e.service import Service, embedded, on_real_servers, stores_of
from tests.servers import minio, postgres, rabbitmq
from tests.speech import recording, write_wav

RUNS = 20
SETTINGS = {"ENGINE_THREADS": "1"}


def run() -> list[Row]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        clip = write_wav(Path(name) / "clip.wav", recording("en", 1, seed=3, pause=0.2)[0])
        with real(Path(name) / "real", **SETTINGS) as (service, url):
            rows.append(row("real servers", measure(service, url, clip), "< 150 ms"))
        folder = Path(name) / "embedded"
        folder.mkdir()
        with embedded(folder, **SETTINGS) as service:
            url = f"sqlite+aiosqlite:///{folder}/data/stt.db"
            rows.append(row("embedded", measure(service, url, clip), ""))
    return rows


@contextlib.contextmanager
def real(folder: Path, **more: str) -> Iterator[tuple[Service, str]]:
    """Run a service on three private servers; yield it and its database URL."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        database, broker, storage = postgres.find(durable=True), rabbitmq.find(), minio.find()
        for server in (database, broker, storage):
            stack.callback(server.remove)
        stores = stores_of(database, broker, storage) | more
        service = stack.enter_context(on_real_servers(folder, stores))
        yield service, stores["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")


def measure(service: Service, url: str, clip: Path) -> list[float]:
    """Return the seconds of each run, engine time excluded."""
    service.transcribe(clip, language="en")
    walls = {}
    for _ in range(RUNS):
        started = time.time()
        job_id = upload(service, clip)
        while service.status(job_id)["status"] != "COMPLETED":
            time.sleep(0.1)
        walls[job_id] = datetime.fromisoformat(service.status(job_id)["completed_at"]).timestamp() - started
    engine = asyncio.run(engine_seconds(url))
    return [wall - engine[job_id] for job_id, wall in walls.items()]


def upload(service: Service, clip: Path) -> str:
    with clip.open("rb") as file:
        answer: httpx.Response = service.client.post(
            "/api/v1/upload", files={"file": (clip.name, file)}, data={"language": "en"}
        )
    return str(answer.json()["job_id"])


async def engine_seconds(url: str) -> dict[str, float]:
    database = Database(url)
    async with database.read() as session:
        statement = select(Metric.job_id, Metric.metric_value).where(Metric.metric_name == "chunk_cpu_seconds")
        seconds_by_job = {row[0]: row[1] for row in (await session.execute(statement)).all()}
    await database.stop()
    return seconds_by_job


def row(setup: str, seconds: list[float], target: str) -> Row:
    median, worst = statistics.median(seconds), max(seconds)
    return Row(
        f"idle submit → COMPLETED, engine time excluded, {setup}",
        f"{median * 1000:.0f} ms",
        f"median of {len(seconds)}; worst {worst * 1000:.0f} ms",
        target,
    )
