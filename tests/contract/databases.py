"""Migrated databases of both kinds for the suites on claims and queries."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from core.database import Database
from migrations.run import upgrade


@contextlib.asynccontextmanager
async def migrated(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await upgrade(database)
    try:
        yield database
    finally:
        await database.stop()
