"""The key of API_KEY, which each API process makes sure of when it starts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from core.config import load_settings
from core.database import Database
from core.errors import SettingsError
from core.secret import Secret
from internal.services.api_keys import ApiKeys

KEY = "stt_0123456789abcdef_" + "s" * 40
PROCESSES = 8


def api_process(url: str, folder: Path, key: str = KEY) -> ApiKeys:
    """Build the keys' service of one process, with connections of its own."""
    settings = load_settings(_env_file=None, database_url=url, data_dir=folder, api_key=key, secret_key="k" * 40)
    return ApiKeys(settings, Database(settings.database_url), Secret(settings.secret_key, folder))


async def test_processes_that_start_together_create_one_key_without_an_error(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    errors: list[Any] = []
    processes = [api_process(database_url, tmp_path) for _ in range(PROCESSES)]
    for process in processes:
        event.listen(process.database.engine.sync_engine, "handle_error", errors.append)
        await process.database.ping()  # so that all are connected before the first one inserts
    await asyncio.gather(*(process.ensure_configured() for process in processes))
    keys = await processes[0].list_all()
    for process in processes:
        await process.database.stop()
    assert [key.key_id for key in keys] == ["0123456789abcdef"]
    assert errors == []


async def test_a_key_with_another_secret_is_refused_and_the_stored_one_kept(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    first, other = api_process(database_url, tmp_path), api_process(database_url, tmp_path, KEY[:-1] + "t")
    await first.ensure_configured()
    (stored,) = await first.list_all()
    with pytest.raises(SettingsError, match="another secret"):
        await other.ensure_configured()
    assert [key.secret_hash for key in await first.list_all()] == [stored.secret_hash]
    await first.database.stop()
    await other.database.stop()
