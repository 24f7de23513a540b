"""The three servers of the benchmark, with a database filled as after a million jobs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from tests.contract.filled import Size, fill
from tests.e2e.service import ROOT, stores_of
from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import Server
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

ENGINE = "tests.benchmarks.instant_engine"
METRICS = (
    *("chunk_seconds", "chunk_cpu_seconds", "chunk_encodes", "chunk_audio_seconds"),
    *("download_seconds", "decode_seconds", "total_seconds", "real_time_factor"),
)
"""Names of the measurements that a job of one chunk leaves."""
SIZES = {"SCALE_ENDED": "1000000", "SCALE_WAITING": "100000"}
UNLIMITED = {
    **dict.fromkeys(("MAX_QUEUED_JOBS", "MAX_QUEUED_SECONDS", "MAX_BYTES_PER_DAY", "MAX_PREPARED_SECONDS"), "0"),
    "MAX_OPEN_LINKS": "100000",
}
SEGMENTS = 7
"""Segments of a chunk of 29 s."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Servers with a filled database. settings: those of the service; fill_seconds: time that filling has taken."""

    settings: dict[str, str]
    database: Postgres
    broker: RabbitMQ
    storage: Minio
    size: Size
    fill_seconds: float

    @property
    def url(self) -> str:
        """URL of the database for asyncpg."""
        return self.settings["DATABASE_URL"]

    def empty(self) -> dict[str, str]:
        """Return settings for a new database, virtual host and bucket on the same servers."""
        return {**self.settings, **stores_of(self.database, self.broker, self.storage)}

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time of each server that runs on this machine."""
        servers = {"PostgreSQL": self.database, "RabbitMQ": self.broker, "MinIO": self.storage}
        return {
            name: tree_cpu_seconds(server.process.pid)
            for name, server in servers.items()
            if isinstance(server, Server) and server.process is not None
        }


@contextlib.contextmanager
def filled_stores() -> Iterator[Stores]:
    """Start the servers and fill the database: SCALE_ENDED (1,000,000) and SCALE_WAITING (100,000) jobs."""
    ended, waiting = (int(os.environ.get(name, count)) for name, count in SIZES.items())
    size = Size(ended, waiting, max(waiting // 20, 100), SEGMENTS, METRICS)
    with contextlib.ExitStack() as stack:
        database, broker, storage = postgres.find(durable=True), rabbitmq.find(), minio.find()
        for server in (database, broker, storage):
            stack.callback(server.remove)
        settings = stores_of(database, broker, storage)
        note(f"filling {ended:,} ended and {waiting:,} waiting jobs")
        started = time.monotonic()
        asyncio.run(fill(settings["DATABASE_URL"], size))
        seconds = time.monotonic() - started
        note(f"filled in {seconds:.0f} s")
        more = {**UNLIMITED, "ENGINE": ENGINE, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "WARNING"}
        yield Stores({**settings, **more}, database, broker, storage, size, seconds)


def tree_cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and its descendants, ended ones included."""
    own = psutil.Process(pid)
    total = 0.0
    for process in [own, *own.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def note(text: str) -> None:
    """Report progress."""
    print(f"… {text}", file=sys.stderr, flush=True)
