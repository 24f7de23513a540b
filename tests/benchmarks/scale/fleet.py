"""Many consumers at once: they start together, half of them are killed at work, and all jobs end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from tests.benchmarks.scale.stores import note
from tests.e2e.service import Service, on_real_servers
from tests.servers.base import wait_until
from tests.speech import recording, write_wav

SCHEDULERS = 2
PATIENCE = 900.0
"""Seconds that a start or the jobs may take."""
TWICE = "SELECT count(*) - count(DISTINCT job_id) FROM metrics WHERE metric_name = 'total_seconds'"
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@dataclass(frozen=True, slots=True)
class Fleet:
    """Figures of `consumers` that start together. Times in seconds, memory in MB.

    started: until all are announced; restarted: until as many as were killed are announced again; half_killed: from the
    kill until all jobs have ended; repeated: chunks that ran more than once; twice: jobs completed more than once;
    connections: to the database; amqp: connections, channels and consumers of the broker.
    """

    consumers: int
    jobs: int
    started: float
    restarted: float
    half_killed: float
    completed: int
    repeated: int
    twice: int
    memory: float
    connections: int
    amqp: tuple[int, int, int]


def measure(stores: dict[str, str], management: str, folder: Path, consumers: int, jobs: int) -> Fleet:
    """Start `consumers` at once, kill half of them when a fifth of the jobs has ended, and start them again.

    stores: settings of empty stores; management: URL of RabbitMQ's HTTP API.
    """
    folder.mkdir(exist_ok=True)
    clip = write_wav(folder / "clip.wav", recording("en", 3, seed=7, pause=0.6)[0])
    settings = {"DATABASE_CONNECTIONS": "2", "WORKER_CONCURRENCY": "1", "LOG_LEVEL": "WARNING", **stores}
    with on_real_servers(folder, settings, ("api",)) as service:
        for number in range(SCHEDULERS):
            service.start(f"scheduler-{number}", "scheduler")
        names = [f"consumer-{number}" for number in range(consumers)]
        started = _start(service, names)
        memory = sum(tree_memory(process.pid) for process in service.processes.values()) / 1e6
        url = stores["DATABASE_URL"]
        connections, amqp = _count(url, CONNECTIONS), _amqp(management)
        for _ in range(jobs):
            service.upload(clip, language="en")
        _until(lambda: _ended(url) >= jobs // 5, "a fifth of the jobs has ended")
        note(f"{consumers // 2} consumers are killed")
        for name in names[: consumers // 2]:
            service.processes[name].kill()
        killed = time.monotonic()
        for name in names[: consumers // 2]:
            service.processes.pop(name).wait()
        _until(lambda: _ended(url) == jobs, "all jobs have ended")
        ended = time.monotonic() - killed
        restarted = _start(service, names[: consumers // 2])
        return Fleet(
            consumers=consumers,
            jobs=jobs,
            started=started,
            restarted=restarted,
            half_killed=ended,
            completed=_count(url, "SELECT count(*) FROM jobs WHERE status = 'COMPLETED'"),
            repeated=_count(url, "SELECT count(*) FROM chunks WHERE attempts > 1"),
            twice=_count(url, TWICE),
            memory=memory,
            connections=max(connections, _count(url, CONNECTIONS)),
            amqp=amqp,
        )


def _start(service: Service, names: list[str]) -> float:
    """Start consumers at once; return the seconds until all of them are announced."""
    started = time.monotonic()
    for name in names:
        service.start(name, "consumer")
    pids = ", ".join(str(service.processes[name].pid) for name in names)
    announced = f"SELECT count(*) FROM workers WHERE pid IN ({pids})"
    url = service.environment["DATABASE_URL"]
    _until(lambda: _count(url, announced) == len(names), f"{len(names)} consumers are announced")
    return time.monotonic() - started


def _until(condition: Callable[[], bool], description: str) -> None:
    wait_until(condition, description, PATIENCE)


def _ended(url: str) -> int:
    return _count(url, "SELECT count(*) FROM jobs WHERE status IN ('COMPLETED', 'FAILED')")


def _count(url: str, query: str) -> int:
    async def fetch() -> int:
        connection = await asyncpg.connect(url)
        try:
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    return asyncio.run(fetch())


def _amqp(management: str) -> tuple[int, int, int]:
    totals: dict[str, Any] = httpx.get(f"{management}/api/overview", timeout=30, verify=False).json()["object_totals"]
    return totals["connections"], totals["channels"], totals["consumers"]


def tree_memory(pid: int) -> float:
    """Return the proportional memory of a process and its descendants in bytes."""
    total = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total
