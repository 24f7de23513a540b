"""Bring a database to the newest schema. Two at once are harmless: PostgreSQL holds an advisory lock meanwhile."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from core.database import Database

_LOCK = 0x5354_5400
"""Any number of our own: the advisory lock that one migration at a time holds."""
LOCK_TIMEOUT = "30s"


def config(connection: Connection) -> Config:
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    settings.attributes["connection"] = connection
    return settings


@cache
def known() -> tuple[str, ...]:
    """Every revision of this version of the program, the newest first."""
    scripts = Config()
    scripts.set_main_option("script_location", str(Path(__file__).parent))
    return tuple(found.revision for found in ScriptDirectory.from_config(scripts).walk_revisions())


async def revision(database: Database) -> str | None:
    """The revision that the database has; None without one. Raises DatabaseUnavailable."""
    async with database.read() as session:
        connection = await session.connection()
        return await connection.run_sync(lambda sync: MigrationContext.configure(sync).get_current_revision())


async def upgrade(database: Database, target: str = "head") -> None:
    """Raises DatabaseUnavailable; SQL errors of a migration pass through and leave the schema as it was."""
    async with database.write() as session:
        connection = await session.connection()
        if not database.sqlite:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        await connection.run_sync(lambda sync: command.upgrade(config(sync), target))
