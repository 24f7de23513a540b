"""The embedded service resumes its jobs after the whole process is killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from core.database import Database
from core.domain.job import JobStatus
from repositories.models import Chunk
from tests.contract import invariants
from tests.e2e import service as services
from tests.faults.harness import alive
from tests.servers.base import wait_until
from tests.speech import encode, recording, word_error_rate

pytestmark = [pytest.mark.speech, pytest.mark.timeout(480)]


async def completed_chunks(url: str) -> dict[int, int]:
    """Return the attempts of each completed chunk."""
    database = Database(url)
    await invariants.check(database)
    async with database.read() as session:
        rows = await session.execute(
            select(Chunk.chunk_index, Chunk.attempts).where(Chunk.status == JobStatus.COMPLETED)
        )
        attempts = {row[0]: row[1] for row in rows}
    await database.stop()
    return attempts


def test_the_embedded_service_resumes_after_a_crash(tmp_path: Path) -> None:
    audio, reference = recording("en", 48, seed=71)
    path = encode(audio, tmp_path / "long.flac")
    url = f"sqlite+aiosqlite:///{tmp_path}/data/stt.db"
    with services.embedded(tmp_path, WORKER_CONCURRENCY="1") as service:
        job_id = service.upload(path, language="en")
        wait_until(lambda: service.status(job_id)["chunks_completed"] >= 1, "one chunk is completed", 60)
        children = psutil.Process(service.processes["embedded"].pid).children(recursive=True)
        service.kill("embedded")
        wait_until(lambda: not any(alive(child) for child in children), "the child processes exit", 15)
        before = asyncio.run(completed_chunks(url))
        assert before
        service.start("embedded")
        service.wait_ready()
        state = service.wait(job_id)
        assert state["status"] == "COMPLETED"
        after = asyncio.run(completed_chunks(url))
        assert {index: after[index] for index in before} == before, "a completed chunk was transcribed again"
        text = service.client.get(f"/api/v1/result/{job_id}").json()["text"]
        assert word_error_rate(reference, text) <= 2.5
        assert {path.name for path in (tmp_path / "data" / "objects").iterdir()} == {"uploads", "results", "peaks"}
