"""Expired jobs: their objects and rows are removed in batches."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.database import after
from core.domain.job import JobStatus
from core.errors import StorageUnavailable
from core.storage.local import LocalStorage
from internal.bootstrap import Application
from repositories.models import Chunk, Job, Metric
from tests.integration.bad_engines import FINE
from tests.integration.test_consumer import (
    bad_audio,
    open_application,
    running_consumer,
    settings_for,
    submit_audio,
    wait_for_end,
)


async def completed_jobs(app: Application, folder: Path, count: int) -> list[str]:
    async with running_consumer(app):
        job_ids = [await submit_audio(app, bad_audio(FINE), folder) for _ in range(count)]
        for job_id in job_ids:
            assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED
        async with asyncio.timeout(60):
            while any("work" in path.parts for path in objects(folder)):  # removed just after the end
                await asyncio.sleep(0.02)
    return job_ids


async def set_time(app: Application, **values: float) -> None:
    async with app.database.write() as session:
        await session.execute(update(Job).values({name: after(seconds) for name, seconds in values.items()}))


def objects(folder: Path) -> list[Path]:
    return [path for path in (folder / "data" / "objects").rglob("*") if path.is_file()]


async def test_jobs_that_ran_without_interruption_are_removed_without_a_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unexpected(_storage: LocalStorage, prefix: str) -> None:
        raise AssertionError(prefix)

    async with open_application(settings_for(tmp_path)) as app:
        await completed_jobs(app, tmp_path, 3)
        assert objects(tmp_path)
        monkeypatch.setattr(LocalStorage, "delete_prefix", unexpected)
        await set_time(app, expires_at=-1)
        await app.retention.expire_jobs()
        assert objects(tmp_path) == []
        await set_time(app, deleted_at=-100_000)
        await app.retention.purge_deleted_jobs()
        async with app.database.read() as session:
            for table in (Job, Chunk, Metric):
                assert (await session.execute(select(func.count()).select_from(table))).scalar_one() == 0


async def test_leftovers_of_interrupted_jobs_are_found(tmp_path: Path) -> None:
    async with open_application(settings_for(tmp_path)) as app:
        (job_id,) = await completed_jobs(app, tmp_path, 1)
        async with app.database.write() as session:
            await session.execute(update(Job).values(claim=3))
        await app.storage.put_bytes(f"work/{job_id}/1.pcm", b"written by an interrupted step")
        await set_time(app, expires_at=-1)
        await app.retention.expire_jobs()
        assert objects(tmp_path) == []


async def test_an_object_that_cannot_be_deleted_holds_up_no_other_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_storage: LocalStorage, _keys: list[str]) -> None:
        raise StorageUnavailable

    async with open_application(settings_for(tmp_path)) as app:
        await completed_jobs(app, tmp_path, 2)
        monkeypatch.setattr(LocalStorage, "delete_many", refused)
        await set_time(app, expires_at=-1)
        await app.retention.expire_jobs()
        assert objects(tmp_path) == []
