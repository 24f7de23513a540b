"""Rates at which housekeeping deletes measurements and jobs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from core.config import load_settings
from internal import bootstrap
from internal.services.retention import Retention
from tests.benchmarks.scale.stores import Stores, note

METRIC_DAYS = 20
"""Days for which measurements are kept: the filled database has those of 30."""
JOBS = 2000


@dataclass(frozen=True, slots=True)
class Rate:
    """Items that one scheduler has deleted. a_million_a_day: items that a million jobs of one chunk leave in a day."""

    name: str
    items: int
    seconds: float
    a_million_a_day: int

    @property
    def rate(self) -> float:
        return self.items / self.seconds


def measure(stores: Stores, folder: Path) -> list[Rate]:
    return asyncio.run(_measure(stores, folder))


async def _measure(stores: Stores, folder: Path) -> list[Rate]:
    settings = {name.lower(): value for name, value in stores.settings.items() if name != "PYTHONPATH"}
    app = bootstrap.build(load_settings(_env_file=None, **settings, data_dir=folder / "data"))
    await app.storage.start()
    retention = Retention(app.database, app.storage, METRIC_DAYS * 86_400)
    connection = await asyncpg.connect(stores.url)

    async def timed(name: str, count: str, work: Callable[[], Awaitable[None]], a_million: int) -> Rate:
        note(name)
        before, started = await connection.fetchval(count), time.monotonic()
        await work()
        return Rate(name, before - await connection.fetchval(count), time.monotonic() - started, a_million)

    expired = "deleted_at = NULL, expires_at = now() - interval '1 minute', claim = 2"
    oldest = f"SELECT job_id FROM jobs WHERE status = 'COMPLETED' ORDER BY created_at LIMIT {JOBS}"
    hidden = f"deleted_at = now() - interval '2 days' WHERE job_id IN ({oldest})"
    visible = "SELECT count(*) FROM jobs WHERE deleted_at IS NULL"
    try:
        metrics = await timed("measurements", "SELECT count(*) FROM metrics", retention.delete_old_metrics, 8_000_000)
        await connection.execute(f"UPDATE jobs SET {expired} WHERE job_id IN ({oldest})")
        hiding = await timed("expired jobs: hidden, with their objects", visible, retention.expire_jobs, 1_000_000)
        await connection.execute(f"UPDATE jobs SET {hidden}")
        rows = "SELECT count(*) FROM jobs"
        purged = await timed("hidden jobs: rows and objects", rows, retention.purge_deleted_jobs, 1_000_000)
        return [metrics, hiding, purged]
    finally:
        await connection.close()
        await app.stop()
