"""The service through PgBouncer in transaction mode, which has fewer connections to PostgreSQL than its clients."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from core.config import load_settings
from core.database import Database
from core.domain.job import TERMINAL, JobStatus
from internal import bootstrap
from tests.contract import invariants
from tests.contract.databases import migrated
from tests.contract.rows import finalise, job, planned_job, run_chunk
from tests.integration.test_consumer import running_consumer, submit_audio
from tests.servers.pgbouncer import CONNECTIONS
from tests.speech import recording

pytestmark = pytest.mark.servers


async def test_concurrent_jobs_share_few_connections(postgres_url: str, pgbouncer_url: str) -> None:
    async def run(database: Database) -> str:
        job_id = await planned_job(database, 3)
        for index in range(3):
            await run_chunk(database, job_id, index)
        await finalise(database, job_id)
        return job_id

    async with migrated(postgres_url.replace("postgresql://", "postgresql+asyncpg://")) as direct:
        pooled = Database(pgbouncer_url, connections=3 * CONNECTIONS, prepared_statements=False)
        job_ids = await asyncio.gather(*(run(pooled) for _ in range(4 * CONNECTIONS)))
        for job_id in job_ids:
            assert (await job(pooled, job_id)).status == JobStatus.COMPLETED
        await pooled.stop()
        await invariants.check(direct)


async def test_a_recording_is_transcribed(postgres_url: str, pgbouncer_url: str, tmp_path: Path) -> None:
    settings = load_settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        temp_dir=tmp_path / "tmp",
        engine="tests.benchmarks.instant_engine",
        worker_concurrency=1,
        database_url=pgbouncer_url,
        database_connections=3 * CONNECTIONS,
        database_prepared_statements=False,
    )
    async with migrated(postgres_url.replace("postgresql://", "postgresql+asyncpg://")):
        app = bootstrap.build(settings)
        await app.storage.start()
        await app.broker.start()
        scheduler = bootstrap.scheduler(app)
        await scheduler.start()
        async with running_consumer(app):
            job_id = await submit_audio(app, recording("en", 1, seed=3)[0], tmp_path)
            async with asyncio.timeout(60):
                while (ended := await job(app.database, job_id)).status not in TERMINAL:
                    await asyncio.sleep(0.05)
        await invariants.check(app.database)
        await scheduler.stop()
        await app.stop()
    assert ended.status == JobStatus.COMPLETED
