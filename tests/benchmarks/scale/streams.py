"""Many clients that follow jobs: memory of the API for each, and the time until a commit has reached all of them."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from core.database import Database
from tests.benchmarks.scale.fleet import tree_memory
from tests.benchmarks.scale.stores import note, tree_cpu_seconds
from tests.contract import rows
from tests.e2e.service import on_real_servers

JOBS = 20
IDLE_SECONDS = 30.0
AT_ONCE = 50
"""Number of connections that are opened at the same time."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Figures of the event streams. Memory in MB, of all API processes; times in seconds.

    opened: until all streams have their first event; idle_cpu: CPU seconds of the API a second without any event;
    reached: from a commit in each job until its segments have reached all readers; commit_cpu: CPU time of that.
    """

    streams: int
    processes: int
    memory_before: float
    memory: float
    opened: float
    idle_cpu: float
    reached: float
    commit_cpu: float

    @property
    def kilobytes(self) -> float:
        """Memory of the API for each stream."""
        return (self.memory - self.memory_before) * 1000 / self.streams


class Reader:
    """A client of one stream. segments: number of those received."""

    def __init__(self) -> None:
        self.segments = 0
        self.opened, self.changed = asyncio.Event(), asyncio.Event()

    async def follow(self, url: str, job_id: str, limit: asyncio.Semaphore) -> None:
        """Read the stream until it is cancelled. Raises ConnectionError if it is refused or ends."""
        address = urlsplit(url)
        async with limit:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            host = f"Host: {address.netloc}\r\n\r\n"
            writer.write(f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\n{host}".encode())
            status = await reader.readline()
            if b" 200 " not in status:
                raise ConnectionError(status.decode())
            await reader.readuntil(b"event: ")
            self.opened.set()
        try:
            while line := await reader.readline():
                if line.startswith(b"event: segment"):
                    self.segments += 1
                    self.changed.set()
            raise ConnectionError("the stream has ended")
        finally:
            writer.close()


def measure(stores: dict[str, str], folder: Path, streams: int, processes: int, idle: float = IDLE_SECONDS) -> Streams:
    """Open `streams` to `processes` of the API, and commit a chunk of each job. stores: settings of empty stores."""
    folder.mkdir(exist_ok=True)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # the kernel may give one process most of the connections
    limits = dict.fromkeys(("MAX_EVENT_STREAMS", "MAX_EVENT_STREAMS_PER_OWNER", "MAX_CONNECTIONS"), str(2 * streams))
    settings = {**stores, **limits, "API_WORKERS": str(processes), "RATE_LIMIT_PER_MINUTE": "0"}
    with on_real_servers(folder, settings, ("api",)) as service:
        pid = service.processes["api"].pid
        return asyncio.run(_measure(stores["DATABASE_URL"], service.url, pid, streams, processes, idle))


async def _measure(database_url: str, url: str, pid: int, streams: int, processes: int, idle: float) -> Streams:
    database = Database(database_url.replace("postgresql://", "postgresql+asyncpg://"))
    job_ids = [await rows.planned_job(database, 3) for _ in range(min(JOBS, streams))]
    before, started = tree_memory(pid), time.monotonic()
    async with _followed(url, job_ids, streams) as readers:
        opened = time.monotonic() - started
        note(f"{streams} streams are open")
        cpu = tree_cpu_seconds(pid)
        await asyncio.sleep(idle)
        idle_cpu = tree_cpu_seconds(pid) - cpu
        memory = tree_memory(pid)
        cpu, started = tree_cpu_seconds(pid), time.monotonic()
        for job_id in job_ids:
            await rows.run_chunk(database, job_id, 0)
        for reader in readers:
            await reader.changed.wait()
        reached = time.monotonic() - started
        commit_cpu = tree_cpu_seconds(pid) - cpu
    await database.stop()
    return Streams(
        streams, processes, before / 1e6, memory / 1e6, opened, idle_cpu / max(idle, 1e-9), reached, commit_cpu
    )


@contextlib.asynccontextmanager
async def _followed(url: str, job_ids: list[str], streams: int) -> AsyncIterator[list[Reader]]:
    """Open the streams, spread over the jobs; yield their readers when each has its first event."""
    limit = asyncio.Semaphore(AT_ONCE)
    readers = [Reader() for _ in range(streams)]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(reader.follow(url, job_ids[number % len(job_ids)], limit))
            for number, reader in enumerate(readers)
        ]
        for reader in readers:
            await reader.opened.wait()
        yield readers
        for task in tasks:
            task.cancel()
