"""How the service is: health of its parts, queues, rates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import Gauge

from core import database_errors
from core.errors import DatabaseUnavailable, InfrastructureError, MachineError
from core.files import check_disk
from internal.bootstrap import Application
from migrations import run as migrations
from repositories import parking, statistics, workers

log = structlog.get_logger(__name__)
PARKED = Gauge("stt_parked_items", "Items of housekeeping that keep failing and are left alone for a while", ["step"])
PATIENCE = 3.0
"""Seconds a part may take to answer before it counts as down."""


@dataclass(frozen=True, slots=True)
class Health:
    """checks: `ok` or what is wrong, by part. workers_sick: why they take no work, by worker."""

    checks: dict[str, str]
    workers_active: int
    jobs_pending: int
    jobs_processing: int
    models: list[str]
    workers_sick: dict[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Every part answers, and where there are consumers one of them works."""
        stuck = self.workers_sick and not self.workers_active
        return not stuck and all(state == "ok" for state in self.checks.values())


async def health(parts: Application) -> Health:
    asked = {
        "database": _database(parts),
        "broker": _state(parts.broker.ping),
        "storage": _state(parts.storage.ping),
    }
    folders = parts.settings.written_folders
    if folders:
        asked["disk"] = _state(partial(_check_disks, folders))
    checks = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
    if checks["database"] != "ok":
        return Health(checks, 0, 0, 0, [])
    try:
        async with parts.database.read() as session:
            alive = await workers.list_live(session)
            counts = await statistics.count_by_status(session)
    except DatabaseUnavailable as error:
        return Health({**checks, "database": _trouble(parts, error)}, 0, 0, 0, [])
    models = workers.available_models(alive)
    sick = {worker.worker_id: worker.sick for worker in alive if worker.sick is not None}
    active = len(workers.healthy(alive))
    return Health(checks, active, counts["PENDING"], counts["PROCESSING"], models, sick)


async def _check_disks(folders: tuple[Path, ...]) -> None:
    """Raises MachineError where this process's own disk takes no more bytes."""
    for folder in folders:
        await asyncio.to_thread(check_disk, folder)


async def _database(parts: Application) -> str:
    """`ok`, or what is wrong with the database or its schema and what to do."""
    try:
        async with asyncio.timeout(PATIENCE):
            await parts.database.ping()
            found = await migrations.current_revision(parts.database)
    except (TimeoutError, DatabaseUnavailable) as error:
        return _trouble(parts, error)
    newest, *_ = known = migrations.known_revisions()
    if found is None:
        return f"down: {database_errors.NO_SCHEMA}"
    if found not in known:
        return f"down: the schema ({found}) is newer than this program ({newest}), update the program"
    return "ok" if found == newest else f"down: the schema ({found}) is older than {newest}, run `make migrate`"


def _trouble(parts: Application, error: BaseException) -> str:
    name = database_errors.describe(error)
    if name == database_errors.SLOW and parts.database.exhausted:
        name = database_errors.EXHAUSTED
    log.warning("the database is in trouble", action="database_trouble", cause=name, reason=repr(error.__cause__))
    return f"down: {name}"


async def _state(ping: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await ping()
    except TimeoutError:
        return "down: no answer"
    except (InfrastructureError, MachineError) as error:
        return f"down: {error.code}"
    return "ok"


async def count_parked(parts: Application) -> None:
    """Set the gauge of parked items; it keeps its last value while the database is away."""
    try:
        async with parts.database.read() as session, asyncio.timeout(PATIENCE):
            counts = await parking.count_by_step(session)
    except DatabaseUnavailable as error:
        log.warning("parked items not counted", action="parked_unknown", reason=str(error.__cause__)[:300])
        return
    PARKED.clear()
    for step, count in counts.items():
        PARKED.labels(step).set(count)


async def stats(parts: Application) -> dict[str, Any]:
    """The figures of API.md section 6; rates 0..1 over ended jobs, times in seconds (None before the first)."""
    queues = await parts.broker.stats()
    async with parts.database.read() as session:
        counts = await statistics.count_by_status(session)
        retries = await statistics.average_retries(session)
        chunk_seconds = await statistics.recent_mean(session, "chunk_seconds")
        total_seconds = await statistics.recent_mean(session, "total_seconds")
        alive = await workers.list_live(session)
    ended = counts["COMPLETED"] + counts["FAILED"]
    return {
        "queues": [
            {
                "name": queue.name,
                "priority": "0-9",
                "pending": queue.ready,
                "unacked": queue.unacked,
                "workers": queue.consumers,
            }
            for queue in queues
        ],
        "jobs_by_status": counts,
        "job_success_rate": counts["COMPLETED"] / ended if ended else 0.0,
        "job_failure_rate": counts["FAILED"] / ended if ended else 0.0,
        "avg_retry_count": retries,
        "chunk_processing_time": chunk_seconds,
        "total_processing_time": total_seconds,
        "workers": [{"worker_id": w.worker_id, "slots": w.slots, "models": w.models, "sick": w.sick} for w in alive],
    }
