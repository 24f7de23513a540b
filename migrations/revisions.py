"""Revisions of the schema, read without Alembic, which takes longer to load than a process needs to check them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from core.database import Database


@cache
def known_revisions() -> tuple[str, ...]:
    """Return every revision known to this version of the program, newest first: the numbers of the files' names."""
    files = Path(__file__).with_name("versions").glob("[0-9]*_*.py")
    return tuple(sorted((path.name.partition("_")[0] for path in files), reverse=True))


def newest() -> str:
    """Return the revision of this version of the program."""
    return known_revisions()[0]


async def current_revision(database: Database) -> str | None:
    """Return the database's revision; None if it has no schema. Raises DatabaseUnavailable."""
    async with database.read() as session:
        connection = await session.connection()
        return await connection.run_sync(_stored_revision)


def _stored_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
