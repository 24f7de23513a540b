"""Database problems in /health: their cause and the remedy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from core import database_errors
from core.config import load_settings
from core.database import Database
from core.errors import DatabaseUnavailable
from internal import bootstrap
from internal.bootstrap import Application
from internal.services import health
from migrations.run import known_revisions, upgrade


@contextlib.asynccontextmanager
async def on(url: str, folder: Path) -> AsyncIterator[Application]:
    parts = bootstrap.build(load_settings(_env_file=None, data_dir=folder, database_url=url))
    await parts.storage.start()
    await parts.broker.start()
    try:
        yield parts
    finally:
        await parts.stop()


async def said(parts: Application) -> str:
    return (await parts.services.health_check.run()).checks["database"]


async def test_a_schema_of_another_version_is_named(database_url: str, tmp_path: Path) -> None:
    async with on(database_url, tmp_path) as parts:
        assert await said(parts) == "down: no schema, run `make migrate`"
        newest, *_, oldest = known_revisions()
        await upgrade(parts.database, oldest)
        assert f"({oldest}) is older than {newest}, run `make migrate`" in await said(parts)
        await upgrade(parts.database)
        assert await said(parts) == "ok"
        async with parts.database.write() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert "(9999) is newer than this program" in await said(parts)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda url: url + "_missing", database_errors.NO_DATABASE),
        (lambda url: url.replace("//stt@", "//nobody@"), database_errors.PASSWORD),
        (lambda url: url.rsplit(":", 1)[0] + ":1/" + url.rsplit("/", 1)[1], database_errors.UNREACHABLE),
    ],
    ids=["name", "user", "port"],
)
async def test_what_is_wrong_with_the_address(
    postgres_url: str, tmp_path: Path, change: Callable[[str], str], name: str
) -> None:
    async with on(change(postgres_url), tmp_path) as parts:
        assert await said(parts) == f"down: {name}"


async def test_an_exhausted_pool_is_named(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.5)
    async with on(database_url, tmp_path) as parts, contextlib.AsyncExitStack() as stack:
        await upgrade(parts.database)
        for _ in range(parts.database._max_connections):
            session = await stack.enter_async_context(parts.database.read())
            await session.execute(text("SELECT 1"))
        assert await said(parts) == f"down: {database_errors.EXHAUSTED}"


async def test_a_database_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: Database) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(Database, "ping", silent)
    async with on("", tmp_path) as parts:
        assert await said(parts) == f"down: {database_errors.SLOW}"


async def test_a_folder_a_damaged_and_a_locked_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("no database at all " * 100)
    for name, expected in (("folder", database_errors.NO_FILE), ("text.db", database_errors.DAMAGED)):
        async with on(f"sqlite:///{tmp_path}/{name}", tmp_path / "data") as parts:
            assert await said(parts) == f"down: {expected}"


async def test_a_refused_connection_is_an_outage_and_no_internal_error(tmp_path: Path) -> None:
    database = Database("postgresql+asyncpg://u:p@127.0.0.1:1/d")
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.stop()


@pytest.mark.servers
async def test_a_wrong_user_is_an_outage_and_no_internal_error(postgres_url: str) -> None:
    """The driver's errors while connecting pass through SQLAlchemy unchanged."""
    database = Database(postgres_url.replace("postgresql://stt@", "postgresql+asyncpg://nobody@"))
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.stop()
