"""Upgrades of the schema, one at a time: by an advisory lock in PostgreSQL; SQLite has a single writer."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

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
    async with database.write() as session:
        await upgrade_in(session, target)


async def upgrade_in(session: AsyncSession, target: str = "head") -> None:
    """Upgrade the schema in the transaction of the caller."""
    connection = await session.connection()
    if connection.dialect.name == "postgresql":
        await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
    await connection.run_sync(lambda sync: command.upgrade(config(sync), target))
