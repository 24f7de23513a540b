"""Alembic migrations create the schema of the models, on both databases."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from core.database import Database
from migrations import run
from migrations.revisions import current_revision, known_revisions
from migrations.run import config, downgrade, upgrade
from repositories.models import Base
from tests.contract.rows import job, planned_job, run_chunk


def _differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


async def test_migrations_equal_the_models(database: Database) -> None:
    async with database.read() as session:
        differences = await (await session.connection()).run_sync(_differences)
    assert differences == []


async def test_revisions_are_the_numbers_of_the_files(database: Database) -> None:
    async with database.read() as session:
        scripts = await (await session.connection()).run_sync(lambda sync: ScriptDirectory.from_config(config(sync)))
    assert tuple(script.revision for script in scripts.walk_revisions()) == known_revisions()
    assert await current_revision(database) == scripts.get_current_head()


async def test_upgrading_twice_changes_nothing(database: Database) -> None:
    await upgrade(database)


async def test_downgrade_leaves_nothing_behind(database: Database) -> None:
    await downgrade(database, "base")
    async with database.read() as session:
        connection = await session.connection()
        remaining = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    assert remaining == ["alembic_version"]


async def test_rows_survive_every_migration_down_and_up(database: Database) -> None:
    """A downgrade drops the columns and tables that its revision added, and nothing else."""
    job_id = await planned_job(database, chunks=3)
    await run_chunk(database, job_id, 0)
    oldest_first = sorted(known_revisions())
    for revision in reversed(oldest_first[:-1]):
        await downgrade(database, revision)
        assert await _counts(database) == (1, 3), f"after the downgrade to {revision}"
    await upgrade(database)
    assert await _counts(database) == (1, 3)
    assert (await job(database, job_id)).chunks_total == 3


async def _counts(database: Database) -> tuple[int, int]:
    async with database.read() as session:
        rows = [
            (await session.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one() for name in ("jobs", "chunks")
        ]
    return rows[0], rows[1]


NEW_JOB = """
INSERT INTO jobs (job_id, owner, status, language, priority, options, created_at, updated_at)
VALUES (gen_random_uuid(), 'local', 'PENDING', 'en', 'normal', '{}', now(), now())
"""


@pytest.mark.servers
async def test_jobs_are_written_while_indexes_of_their_table_are_created(postgres_url: str) -> None:
    """Two processes upgrade; a transaction that is still open delays them, but not the writers after it."""
    database = Database(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))
    await upgrade(database, _before("bounded_queries"))
    async with database.write() as session:
        await session.execute(text(NEW_JOB))
    async with database.write() as unfinished:
        await unfinished.execute(text(NEW_JOB))
        upgrades = [asyncio.create_task(upgrade(database)) for _ in range(2)]
        await _until_indexes_are_created(database)
        async with database.write() as session:
            await session.execute(text(NEW_JOB))
    await asyncio.gather(*upgrades)
    async with database.read() as session:
        invalid = await session.execute(text("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid"))
        assert invalid.all() == []
        assert (await session.execute(text("SELECT count(*) FROM jobs"))).scalar_one() == 3
    assert await current_revision(database) == known_revisions()[0]
    await database.stop()


def _before(name: str) -> str:
    """Return the revision before the one whose file has this name."""
    (path,) = Path(run.__file__).with_name("versions").glob(f"*_{name}.py")
    return known_revisions()[known_revisions().index(path.name.partition("_")[0]) + 1]


async def _until_indexes_are_created(database: Database) -> None:
    running = text("SELECT count(*) FROM pg_stat_progress_create_index WHERE datname = current_database()")
    async with asyncio.timeout(30):
        while True:
            async with database.read() as session:
                if (await session.execute(running)).scalar_one():
                    return
            await asyncio.sleep(0.05)
