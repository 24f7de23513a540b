"""Messages a second through the pipeline with an engine that does no work, and the CPU time of each process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import psutil

from core.config import load_settings
from core.domain import keys
from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE, PlannedChunk, Span
from internal import bootstrap
from internal.bootstrap import Application
from repositories import claims, plans
from repositories.claims import ClaimRequest, WakeUp
from tests.benchmarks.scale.stores import Stores, note, tree_cpu_seconds
from tests.contract import rows
from tests.e2e.service import Service, on_real_servers
from tests.speech import recording, write_wav

FLEETS = (1, 2, 4)
"""Numbers of consumer processes."""
SLOTS = 2
JOBS, CHUNKS = 8, 100
CLIPS = 60


@dataclass(frozen=True, slots=True)
class Throughput:
    """A run. seconds: its duration; cpu: seconds by process; database: its commits, and syncs and bytes of its log."""

    name: str
    consumers: int
    messages: int
    seconds: float
    cpu: dict[str, float]
    database: dict[str, float]

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


def measure(stores: Stores, folder: Path) -> list[Throughput]:
    """Run chunks of 1 s, chunks of 29 s, and whole clips through 1, 2 and 4 consumers."""
    folder.mkdir()
    with on_real_servers(folder, {**stores.settings, "WORKER_CONCURRENCY": str(SLOTS)}, ("api",)) as service:
        found = []
        for count in FLEETS:
            with consumers(service, count):
                found.append(chunks(stores, service, count, 1.0, JOBS))
                found.append(chunks(stores, service, count, 29.0, 2))
            found.append(clips(stores, service, count))
        return found


@contextlib.contextmanager
def consumers(service: Service, count: int) -> Iterator[None]:
    """Run `count` consumers that are ready."""
    for number in range(count):
        service.start(f"consumer-{number}", "consumer")
    try:
        while service.client.get("/health").json()["workers_active"] < count:
            time.sleep(0.2)
        yield
    finally:
        for number in range(count):
            service.processes[f"consumer-{number}"].terminate()
        for number in range(count):
            service.processes.pop(f"consumer-{number}").wait(60)


def chunks(stores: Stores, service: Service, count: int, seconds: float, jobs: int) -> Throughput:
    """Run planned jobs: claim, read, engine, commit, and a Finalise for each."""
    note(f"chunks of {seconds:.0f} s, {count} consumers")
    return asyncio.run(_chunks(stores, service, count, seconds, jobs))


async def _chunks(stores: Stores, service: Service, count: int, seconds: float, jobs: int) -> Throughput:
    app = await _application(stores, service)
    planned = [await _plan(app, seconds) for _ in range(jobs)]
    job_ids = [wake_ups[0].job_id for wake_ups in planned]
    written = await _written(stores)
    before, started = _cpu(stores, service), time.monotonic()
    for wake_ups in planned:
        await app.publisher.publish_rows(wake_ups)
    await _wait(stores, job_ids)
    took = time.monotonic() - started
    used = _difference(before, _cpu(stores, service))
    database = _difference(written, await _written(stores))
    await app.stop()
    return Throughput(f"chunks of {seconds:.0f} s", count, jobs * (CHUNKS + 1), took, used, database)


async def _application(stores: Stores, service: Service) -> Application:
    settings = {name.lower(): value for name, value in stores.settings.items() if name != "PYTHONPATH"}
    app = bootstrap.build(load_settings(_env_file=None, **settings, data_dir=service.folder / "bench"))
    await app.storage.start()
    await app.broker.start()
    return app


async def _plan(app: Application, seconds: float) -> list[WakeUp]:
    """Insert a job with its plan and its working audio, and return the wake-ups of its first chunks."""
    job_id = await rows.new_job(app.database, priority="high")
    length = int(seconds * SAMPLE_RATE)
    planned = tuple(PlannedChunk((Span(index * length, (index + 1) * length),)) for index in range(CHUNKS))
    audio = bytes(length * CHUNKS * BYTES_PER_SAMPLE)
    await app.storage.put_bytes(keys.working_key(job_id, 1), audio)
    async with app.database.write() as session:
        assert await claims.claim_prepare(session, job_id, 0, ClaimRequest("bench", 600.0))
    async with app.database.write() as session:
        plan = replace(rows.plan(0, 1, plans.FIRST_RELEASE, job_id), chunks=planned, duration=seconds * CHUNKS)
        wake_ups = await plans.store_plan(session, job_id, plan)
    assert wake_ups
    return wake_ups


def clips(stores: Stores, service: Service, count: int) -> Throughput:
    """Upload clips, then start the consumers: three messages each."""
    note(f"clips, {count} consumers")
    clip = write_wav(service.folder / "clip.wav", recording("en", 3, seed=7, pause=0.6)[0])
    job_ids = [service.upload(clip, language="en", priority="high") for _ in range(CLIPS)]
    written = asyncio.run(_written(stores))
    with consumers(service, count):
        before, done, started = _cpu(stores, service), asyncio.run(_ended(stores, job_ids)), time.monotonic()
        asyncio.run(_wait(stores, job_ids))
        took = time.monotonic() - started
        used = _difference(before, _cpu(stores, service))
        database = _difference(written, asyncio.run(_written(stores)))
    return Throughput("clips of 10 s: Prepare, one chunk, Finalise", count, 3 * (CLIPS - done), took, used, database)


async def _wait(stores: Stores, job_ids: list[str]) -> None:
    while await _ended(stores, job_ids) < len(job_ids):
        await asyncio.sleep(0.1)


async def _ended(stores: Stores, job_ids: list[str]) -> int:
    connection = await asyncpg.connect(stores.url)
    try:
        query = (
            "SELECT count(*) FILTER (WHERE status = 'COMPLETED'), count(*) FILTER (WHERE status = 'FAILED') FROM jobs"
        )
        completed, failed = await connection.fetchrow(f"{query} WHERE job_id = ANY($1::uuid[])", job_ids)
        assert not failed, f"{failed} jobs have failed"
        return int(completed)
    finally:
        await connection.close()


def _cpu(stores: Stores, service: Service) -> dict[str, float]:
    """Return CPU seconds: of the servers, of the consumers' own processes, and of their children."""
    own, children = 0.0, 0.0
    for name, process in service.processes.items():
        if name.startswith("consumer"):
            alone = sum(psutil.Process(process.pid).cpu_times()[:2])
            own += alone
            children += tree_cpu_seconds(process.pid) - alone
    return {"consumers": own, "engines and ffmpeg": children, **stores.cpu_seconds()}


async def _written(stores: Stores) -> dict[str, float]:
    """Return what PostgreSQL has written so far. Its processes report their share once a second."""
    await asyncio.sleep(1.5)
    connection = await asyncpg.connect(stores.url)
    try:
        commits = await connection.fetchval("SELECT sum(xact_commit) FROM pg_stat_database")
        log = await connection.fetchrow("SELECT wal_sync, wal_bytes FROM pg_stat_wal")
        return {"commits": float(commits), "syncs": float(log["wal_sync"]), "bytes": float(log["wal_bytes"])}
    finally:
        await connection.close()


def _difference(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}
