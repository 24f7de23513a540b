"""Upgrades of the schema, one at a time: by an advisory lock in PostgreSQL; SQLite has a single writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)
_LOCK = 0x5354_5400
"""Key of the advisory lock: an arbitrary number that nothing else in the database uses."""
LOCK_TIMEOUT_SECONDS = 30
"""Maximum wait for the lock of a table: a statement that waits for it blocks all that come after it."""
UPGRADE_TIMEOUT_SECONDS = 3600.0
"""Maximum wait for the upgrade of another process."""
POLL_SECONDS = 0.2


def config(connection: Connection) -> Config:
    """Return Alembic's configuration for an open connection."""
    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent))
    settings.attributes["connection"] = connection
    return settings


async def upgrade(database: Database, target: str = "head") -> None:
    """Upgrade the schema to `target`. Raises DatabaseUnavailable.

    SQL errors of a migration propagate. Each migration is a transaction of its own, which they roll back; in SQLite all
    are one. In PostgreSQL statements have no time-out, but a wait for a table's lock ends after LOCK_TIMEOUT_SECONDS.
    """
    await _run(database, lambda sync: command.upgrade(config(sync), target))


async def downgrade(database: Database, target: str) -> None:
    """Undo the migrations after `target`: drop the tables and columns that they added. Raises as `upgrade`."""
    await _run(database, lambda sync: command.downgrade(config(sync), target))


async def _run(database: Database, step: Callable[[Connection], None]) -> None:
    if database.sqlite:
        async with database.alter() as session:
            await (await session.connection()).run_sync(step)
        return
    patient = Database(database.url, prepared_statements=database.prepared_statements, statement_seconds=None)
    try:
        async with patient.read() as lock, patient.connect() as connection:
            await _wait_for_lock(lock)
            await connection.run_sync(step)
    finally:
        await patient.stop()


async def _wait_for_lock(session: AsyncSession) -> None:
    """Take the lock for as long as the transaction lasts. Raises DatabaseUnavailable.

    A session that waited in PostgreSQL, or in a transaction, would hold a snapshot, for which CREATE INDEX CONCURRENTLY
    waits.
    """
    taken = text(f"SELECT pg_try_advisory_xact_lock({_LOCK})")
    for attempt in range(int(UPGRADE_TIMEOUT_SECONDS / POLL_SECONDS)):
        if (await session.execute(taken)).scalar_one():
            # the transaction stays open and idle; this statement also ends the portal, and so the snapshot, of the last
            await session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            return
        await session.rollback()
        if not attempt:
            log.info("another process upgrades the schema, waiting", action="upgrade_waits")
        await asyncio.sleep(POLL_SECONDS)
    raise DatabaseUnavailable
