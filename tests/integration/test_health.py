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
from migrations.revisions import known_revisions
from migrations.run import upgrade


@contextlib.asynccontextmanager
async def application_on(url: str, folder: Path) -> AsyncIterator[Application]:
    app = bootstrap.build(load_settings(_env_file=None, data_dir=folder, database_url=url))
    await app.storage.start()
    await app.broker.start()
    try:
        yield app
    finally:
        await app.stop()


async def database_check(app: Application) -> str:
    return (await app.services.health_check.run()).checks["database"]


async def test_a_schema_of_another_version_is_reported(database_url: str, tmp_path: Path) -> None:
    async with application_on(database_url, tmp_path) as app:
        assert await database_check(app) == "down: no schema, run `make migrate`"
        newest, *_, oldest = known_revisions()
        await upgrade(app.database, oldest)
        assert f"({oldest}) is older than {newest}, run `make migrate`" in await database_check(app)
        await upgrade(app.database)
        assert await database_check(app) == "ok"
        async with app.database.write() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert "(9999) is newer than this program" in await database_check(app)


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
async def test_problems_of_the_database_url_are_reported(
    postgres_url: str, tmp_path: Path, change: Callable[[str], str], name: str
) -> None:
    async with application_on(change(postgres_url), tmp_path) as app:
        assert await database_check(app) == f"down: {name}"


async def test_an_exhausted_pool_is_reported(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.5)
    async with application_on(database_url, tmp_path) as app, contextlib.AsyncExitStack() as stack:
        await upgrade(app.database)
        for _ in range(app.database._max_connections):
            session = await stack.enter_async_context(app.database.read())
            await session.execute(text("SELECT 1"))
        assert await database_check(app) == f"down: {database_errors.EXHAUSTED}"


async def test_an_unresponsive_database_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: Database) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.1)
    monkeypatch.setattr(Database, "ping", silent)
    async with application_on("", tmp_path) as app:
        assert await database_check(app) == f"down: {database_errors.SLOW}"


async def test_problems_of_the_sqlite_file_are_reported(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.db").write_text("no database at all " * 100)
    for name, expected in (("folder", database_errors.NO_FILE), ("text.db", database_errors.DAMAGED)):
        async with application_on(f"sqlite:///{tmp_path}/{name}", tmp_path / "data") as app:
            assert await database_check(app) == f"down: {expected}"


async def test_a_refused_connection_is_an_outage(tmp_path: Path) -> None:
    database = Database("postgresql+asyncpg://u:p@127.0.0.1:1/d")
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.stop()


@pytest.mark.servers
async def test_a_wrong_user_is_an_outage(postgres_url: str) -> None:
    """The driver's errors while connecting pass through SQLAlchemy unchanged."""
    database = Database(postgres_url.replace("postgresql://stt@", "postgresql+asyncpg://nobody@"))
    with pytest.raises(DatabaseUnavailable):
        await database.ping()
    await database.stop()
