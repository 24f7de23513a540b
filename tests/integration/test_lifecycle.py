"""Cancel, retry, delete and expiry: through the API, with a consumer on the embedded stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select, update

from core.database import after
from core.domain.job import JobStatus
from internal import bootstrap
from internal.api.app import create_app
from internal.bootstrap import Application
from repositories.models import Chunk, Job, Metric
from tests.contract import invariants
from tests.integration.bad_engines import CRASH, FINE, HANG
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
from tests.speech import recording


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    async with open_application(settings_for(tmp_path, max_retries=0)) as app:
        yield app


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(app.settings, app.services))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        yield http


def objects(app: Application) -> list[str]:
    root = Path(app.settings.data_dir) / "objects"
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


async def wait_for_first_chunk(app: Application) -> None:
    async with asyncio.timeout(20):
        while not await has_claimed_chunk(app):
            await asyncio.sleep(0.02)


async def test_cancel_keeps_finished_chunks(client: httpx.AsyncClient, app: Application, tmp_path: Path) -> None:
    async with running_consumer(app):
        job_id = await submit_audio(app, bad_audio(HANG), tmp_path)
        await wait_for_first_chunk(app)
        answer = await client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "CANCELLED")
        second = await client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert (second.status_code, second.json()["code"]) == (409, "CONFLICT")
        partial = await client.get(f"/api/v1/result/{job_id}", params={"partial": True})
        assert (partial.status_code, partial.json()["status"]) == (200, "CANCELLED")
    await invariants.check(app.database)


async def test_retry_runs_missing_chunks_only(client: httpx.AsyncClient, app: Application, tmp_path: Path) -> None:
    job_id = await submit_audio(app, recording("en", 30, 2)[0], tmp_path)
    assert (await client.post(f"/api/v1/jobs/{job_id}/cancel")).status_code == 202
    assert (await client.post(f"/api/v1/jobs/{job_id}/retry")).status_code == 202
    async with running_consumer(app):
        assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED
        answer = await client.post(f"/api/v1/jobs/{job_id}/retry")
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    async with app.database.read() as session:
        transcribed = select(func.count()).where(Metric.metric_name == "chunk_seconds")
        chunks = select(func.count()).select_from(Chunk)
        assert (await session.execute(transcribed)).scalar_one() == (await session.execute(chunks)).scalar_one()


async def test_a_failed_job_can_be_retried(client: httpx.AsyncClient, app: Application, tmp_path: Path) -> None:
    async with running_consumer(app):
        job_id = await submit_audio(app, bad_audio(CRASH), tmp_path)
        assert (await wait_for_end(app, job_id)).status == JobStatus.FAILED
        before = (await get_job(app, job_id)).event_seq
        assert (await client.post(f"/api/v1/jobs/{job_id}/retry")).status_code == 202
        job = await wait_for_end(app, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "WORKER_CRASH")
    assert job.event_seq == before + 2, "reopened and failed: two visible changes"


async def test_delete_removes_everything_while_the_job_runs(
    client: httpx.AsyncClient, app: Application, tmp_path: Path
) -> None:
    async with running_consumer(app):
        job_id = await submit_audio(app, bad_audio(HANG), tmp_path)
        await wait_for_first_chunk(app)
        assert (await client.delete(f"/api/v1/jobs/{job_id}")).status_code == 204
        for call in ("status", "result", "download", "jobs"):
            assert (await client.get(f"/api/v1/{call}/{job_id}")).status_code == 404
        assert (await client.delete(f"/api/v1/jobs/{job_id}")).status_code == 404
        assert objects(app) == []
    await invariants.check(app.database)


async def test_the_second_pass_removes_rows_and_late_objects(
    client: httpx.AsyncClient, app: Application, tmp_path: Path
) -> None:
    job_id = await submit_audio(app, bad_audio(FINE), tmp_path)
    await client.delete(f"/api/v1/jobs/{job_id}")
    await app.storage.put_bytes(f"work/{job_id}/1.pcm", b"written late by a paused process")
    await bootstrap.maintenance(app).housekeep()
    assert objects(app), "a day has not passed"
    async with app.database.write() as session:
        await session.execute(update(Job).values(deleted_at=after(-90_000)))
    await bootstrap.maintenance(app).housekeep()
    assert objects(app) == []
    async with app.database.read() as session:
        assert (await session.execute(select(Job))).first() is None


async def test_results_expire_after_their_ttl(tmp_path: Path) -> None:
    async with open_application(settings_for(tmp_path, result_ttl_seconds=3600)) as app, running_consumer(app):
        job_id = await submit_audio(app, bad_audio(FINE), tmp_path)
        job = await wait_for_end(app, job_id)
        assert job.expires_at is not None
        await bootstrap.maintenance(app).housekeep()
        assert objects(app)
        async with app.database.write() as session:
            await session.execute(update(Job).values(expires_at=after(-1)))
        await bootstrap.maintenance(app).housekeep()
        assert objects(app) == []
        async with app.database.read() as session:
            assert (await session.execute(select(Job.deleted_at))).scalar_one() is not None


@pytest.mark.parametrize("method", ["cancel", "retry"])
async def test_unknown_jobs_are_not_found(client: httpx.AsyncClient, method: str) -> None:
    assert (await client.post(f"/api/v1/jobs/nobody/{method}")).status_code == 404
    assert (await client.delete("/api/v1/jobs/nobody")).status_code == 404
