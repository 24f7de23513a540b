"""Bring a database to the newest schema. Two at once are harmless: PostgreSQL holds an advisory lock meanwhile."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
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


async def upgrade(database: Database, revision: str = "head") -> None:
    """Raises DatabaseUnavailable; SQL errors of a migration pass through and leave the schema as it was."""
    async with database.write() as session:
        connection = await session.connection()
        if not database.sqlite:
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        await connection.run_sync(lambda sync: command.upgrade(config(sync), revision))
