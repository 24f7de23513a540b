"""Upgrades of the schema, one at a time: by an advisory lock in PostgreSQL; SQLite has a single writer."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from core.database import Database

_LOCK = 0x5354_5400
"""Key of the advisory lock: an arbitrary number that nothing else in the database uses."""
LOCK_TIMEOUT = "30s"
"""Maximum wait for a lock, the advisory one included, before the upgrade fails."""


def config(connection: Connection) -> Config:
    """Return Alembic's configuration for an open connection."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    settings.attributes["connection"] = connection
    return settings


async def upgrade(database: Database, target: str = "head") -> None:
    """Upgrade the schema to `target`. Raises DatabaseUnavailable.

    SQL errors of a migration propagate and leave the schema unchanged.
    """
    async with database.alter() as session:
        await upgrade_in(session, target)


async def upgrade_in(session: AsyncSession, target: str = "head") -> None:
    """Upgrade the schema in the caller's transaction, one of `Database.alter`."""
    connection = await _locked(session)
    await connection.run_sync(lambda sync: command.upgrade(config(sync), target))


async def downgrade(database: Database, target: str) -> None:
    """Undo the migrations after `target`: drop the tables and columns that they added. Raises as `upgrade`."""
    async with database.alter() as session:
        connection = await _locked(session)
        await connection.run_sync(lambda sync: command.downgrade(config(sync), target))


async def _locked(session: AsyncSession) -> AsyncConnection:
    """Return the session's connection once no other migration runs."""
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    return connection
