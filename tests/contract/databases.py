"""A fresh, migrated database of each kind: every suite on claims and queries runs on both."""

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
