"""How the service is: health of its parts, queues, rates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Gauge

from core.errors import DatabaseUnavailable, InfrastructureError
from internal.bootstrap import Parts
from repositories import jobs, parking, workers

log = structlog.get_logger(__name__)
PARKED = Gauge("stt_parked_items", "Items of housekeeping that keep failing and are left alone for a while", ["step"])
PATIENCE = 3.0
"""Seconds a part may take to answer before it counts as down."""


@dataclass(frozen=True, slots=True)
class Health:
    """checks: `ok` or what is wrong, by part."""

    checks: dict[str, str]
    workers_active: int
    jobs_pending: int
    jobs_processing: int
    models: list[str]

    @property
    def healthy(self) -> bool:
        return all(state == "ok" for state in self.checks.values())


async def health(parts: Parts) -> Health:
    pings = {"database": parts.database.ping, "broker": parts.broker.ping, "storage": parts.storage.ping}
    states = await asyncio.gather(*(_state(ping) for ping in pings.values()))
    checks = dict(zip(pings, states, strict=True))
    if checks["database"] != "ok":
        return Health(checks, 0, 0, 0, [])
    try:
        async with parts.database.read() as session:
            alive = await workers.alive(session)
            counts = await jobs.counts(session)
    except DatabaseUnavailable as error:
        # it answers, but not to our tables: most likely nobody has run the migrations
        log.warning("the database does not know our tables", action="no_schema", reason=str(error.__cause__)[:300])
        return Health({**checks, "database": "down: no schema, run `make migrate`"}, 0, 0, 0, [])
    models = workers.models(alive)
    return Health(checks, len(alive), counts["PENDING"], counts["PROCESSING"], models)


async def _state(ping: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(PATIENCE):
            await ping()
    except TimeoutError:
        return "down: no answer"
    except InfrastructureError as error:
        return f"down: {error.code}"
    return "ok"


async def count_parked(parts: Parts) -> None:
    """Set the gauge of parked items; it keeps its last value while the database is away."""
    try:
        async with parts.database.read() as session, asyncio.timeout(PATIENCE):
            counts = await parking.counts(session)
    except DatabaseUnavailable as error:
        log.warning("parked items not counted", action="parked_unknown", reason=str(error.__cause__)[:300])
        return
    PARKED.clear()
    for step, count in counts.items():
        PARKED.labels(step).set(count)


async def stats(parts: Parts) -> dict[str, Any]:
    """The figures of API.md section 6; rates 0..1 over ended jobs, times in seconds (None before the first)."""
    queues = await parts.broker.stats()
    async with parts.database.read() as session:
        counts = await jobs.counts(session)
        retries = await jobs.average_retries(session)
        chunk_seconds = await jobs.recent_mean(session, "chunk_seconds")
        total_seconds = await jobs.recent_mean(session, "total_seconds")
        alive = await workers.alive(session)
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
        "workers": [{"worker_id": w.worker_id, "slots": w.slots, "models": w.models} for w in alive],
    }
