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
from tests.integration.test_consumer import configured, consuming, ended, held, job_of, made, submitted, wish
from tests.speech import recording


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Application]:
    async with made(configured(tmp_path, max_retries=0)) as found:
        yield found


@pytest.fixture
async def client(parts: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(parts.settings, parts.services))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as found:
        yield found


def objects(parts: Application) -> list[str]:
    root = Path(parts.settings.data_dir) / "objects"
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


async def running(parts: Application) -> None:
    async with asyncio.timeout(20):
        while not await held(parts):
            await asyncio.sleep(0.02)


async def test_cancel_keeps_what_is_finished(client: httpx.AsyncClient, parts: Application, tmp_path: Path) -> None:
    async with consuming(parts):
        job_id = await submitted(parts, wish(HANG), tmp_path)
        await running(parts)
        answer = await client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "CANCELLED")
        again = await client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "CONFLICT")
        partial = await client.get(f"/api/v1/result/{job_id}", params={"partial": True})
        assert (partial.status_code, partial.json()["status"]) == (200, "CANCELLED")
    await invariants.check(parts.database)


async def test_retry_runs_what_is_missing(client: httpx.AsyncClient, parts: Application, tmp_path: Path) -> None:
    job_id = await submitted(parts, recording("en", 30, 2)[0], tmp_path)
    assert (await client.post(f"/api/v1/jobs/{job_id}/cancel")).status_code == 202
    assert (await client.post(f"/api/v1/jobs/{job_id}/retry")).status_code == 202
    async with consuming(parts):
        assert (await ended(parts, job_id)).status == JobStatus.COMPLETED
        answer = await client.post(f"/api/v1/jobs/{job_id}/retry")
        assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    async with parts.database.read() as session:
        heard = select(func.count()).where(Metric.metric_name == "chunk_seconds")
        chunks = select(func.count()).select_from(Chunk)
        assert (await session.execute(heard)).scalar_one() == (await session.execute(chunks)).scalar_one()


async def test_a_failed_job_can_be_retried(client: httpx.AsyncClient, parts: Application, tmp_path: Path) -> None:
    async with consuming(parts):
        job_id = await submitted(parts, wish(CRASH), tmp_path)
        assert (await ended(parts, job_id)).status == JobStatus.FAILED
        before = (await job_of(parts, job_id)).event_seq
        assert (await client.post(f"/api/v1/jobs/{job_id}/retry")).status_code == 202
        job = await ended(parts, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "WORKER_CRASH")
    assert job.event_seq == before + 2, "reopened and failed: two visible changes"


async def test_delete_removes_everything_also_while_it_runs(
    client: httpx.AsyncClient, parts: Application, tmp_path: Path
) -> None:
    async with consuming(parts):
        job_id = await submitted(parts, wish(HANG), tmp_path)
        await running(parts)
        assert (await client.delete(f"/api/v1/jobs/{job_id}")).status_code == 204
        for call in ("status", "result", "download", "jobs"):
            assert (await client.get(f"/api/v1/{call}/{job_id}")).status_code == 404
        assert (await client.delete(f"/api/v1/jobs/{job_id}")).status_code == 404
        assert objects(parts) == []
    await invariants.check(parts.database)


async def test_the_second_pass_removes_rows_and_what_came_late(
    client: httpx.AsyncClient, parts: Application, tmp_path: Path
) -> None:
    job_id = await submitted(parts, wish(FINE), tmp_path)
    await client.delete(f"/api/v1/jobs/{job_id}")
    await parts.storage.put_bytes(f"work/{job_id}/1.pcm", b"written late by a paused process")
    await bootstrap.maintenance(parts).housekeep()
    assert objects(parts), "a day has not passed"
    async with parts.database.write() as session:
        await session.execute(update(Job).values(deleted_at=after(-90_000)))
    await bootstrap.maintenance(parts).housekeep()
    assert objects(parts) == []
    async with parts.database.read() as session:
        assert (await session.execute(select(Job))).first() is None


async def test_results_expire_when_told_to(tmp_path: Path) -> None:
    async with made(configured(tmp_path, result_ttl_seconds=3600)) as parts, consuming(parts):
        job_id = await submitted(parts, wish(FINE), tmp_path)
        job = await ended(parts, job_id)
        assert job.expires_at is not None
        await bootstrap.maintenance(parts).housekeep()
        assert objects(parts)
        async with parts.database.write() as session:
            await session.execute(update(Job).values(expires_at=after(-1)))
        await bootstrap.maintenance(parts).housekeep()
        assert objects(parts) == []
        async with parts.database.read() as session:
            assert (await session.execute(select(Job.deleted_at))).scalar_one() is not None


@pytest.mark.parametrize("method", ["cancel", "retry"])
async def test_unknown_jobs(client: httpx.AsyncClient, method: str) -> None:
    assert (await client.post(f"/api/v1/jobs/nobody/{method}")).status_code == 404
    assert (await client.delete("/api/v1/jobs/nobody")).status_code == 404
