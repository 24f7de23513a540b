"""Databases with the newest schema. A SQLite file is a copy of one that was migrated before."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from core.database import Database
from migrations import run

_folder = tempfile.TemporaryDirectory(prefix="stt-schema-")


async def upgrade(database: Database) -> None:
    """Give the database the newest schema."""
    path = Path(database.url.partition(":///")[2])
    if not database.sqlite or path.exists():
        await run.upgrade(database)
        return
    migrated_file = Path(_folder.name) / "stt.db"
    if not migrated_file.exists():
        first = Database(f"sqlite+aiosqlite:///{migrated_file}.new")
        await run.upgrade(first)
        await first.stop()
        Path(f"{migrated_file}.new").rename(migrated_file)
    await asyncio.to_thread(shutil.copyfile, migrated_file, path)


@contextlib.asynccontextmanager
async def migrated(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await upgrade(database)
    try:
        yield database
    finally:
        await database.stop()
