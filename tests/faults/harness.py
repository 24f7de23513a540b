"""Harness of the fault tests: a service on real servers, processes that stop at a step, checks after each fault."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from minio import Minio as Client
from sqlalchemy import select, text

from core.config import load_settings
from core.database import Database
from core.domain.job import TERMINAL, JobStatus
from internal import bootstrap
from internal.bootstrap import Application
from internal.consumer.workspace import MARKER, Workspace
from internal.services import publishing
from repositories import jobs
from repositories.claims import WakeUp
from repositories.models import Chunk, Job, Metric
from tests.contract import invariants
from tests.e2e.service import Service
from tests.servers.base import wait_until

SCRIPT = Path(__file__).with_name("stoppable.py")
SCHEDULERS = ("scheduler", "scheduler-2")
STORES = ("DATABASE_URL", "BROKER", "RABBITMQ_URL", "STORAGE", "DATA_DIR", "ALLOW_DEFAULT_CREDENTIALS")


@dataclass
class Process:
    """A process of the service; `folder` holds the files that signal its stop at a step."""

    service: Service
    name: str
    folder: Path

    @property
    def popen(self) -> subprocess.Popen[bytes]:
        return self.service.processes[self.name]

    def wait_for_step(self, seconds: float = 40) -> None:
        wait_until((self.folder / "reached").exists, f"{self.name} stops at its step\n{self.log()[-3000:]}", seconds)

    def release(self) -> None:
        (self.folder / "go").touch()

    def log(self) -> str:
        return (self.service.folder / f"{self.name}.log").read_text()

    def log_entries(self, action: str) -> list[dict[str, Any]]:
        """Return the process's log entries with this action."""
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return [line for line in lines if line.get("action") == action]

    def wait_for_log(self, action: str, seconds: float = 40) -> None:
        wait_until(lambda: bool(self.log_entries(action)), f"{self.name} says {action}", seconds)

    def kill(self) -> None:
        """Kill with SIGKILL and wait until no child process is left."""
        children = psutil.Process(self.popen.pid).children(recursive=True)
        self.service.kill(self.name)
        wait_until(lambda: not any(alive(child) for child in children), "the child processes exit", 15)

    def pause(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Send SIGTERM and wait for the exit. The HTTP server raises the signal again after its shutdown."""
        process = self.service.processes.pop(self.name)
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM), self.log()[-3000:]


def alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


@dataclass
class Harness:
    """A service and a test's own consumers. The API and two schedulers run all the time."""

    service: Service
    folder: Path
    consumers: list[Process] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)

    def consumer(self, stop_at: str | None = None, *, wait: bool = True, **environment: str) -> Process:
        """Start a consumer, which stops at the step `stop_at` if given. `wait`: until it is ready."""
        process = self._process(f"consumer-{self.folder.name}-{len(self.consumers)}")
        self.consumers.append(process)
        command: tuple[str, ...] = ()
        if stop_at is not None:
            command = (sys.executable, str(SCRIPT), "consumer")
            environment |= {"STOP_AT": stop_at, "STOP_FOLDER": str(process.folder)}
        self.service.start(process.name, "consumer", *command, **environment)
        if wait:
            process.wait_for_log("consumer_started")
        return process

    def api(self, stop_at: str | None = None) -> Process:
        """Start the API again on the same port."""
        process = self._process("api")
        command = () if stop_at is None else (sys.executable, str(SCRIPT), "api")
        self.service.start("api", "api", *command, STOP_AT=stop_at or "", STOP_FOLDER=str(process.folder))
        self.service.wait_ready(workers=False)
        return process

    def process(self, name: str) -> Process:
        return Process(self.service, name, self.folder)

    def _process(self, name: str) -> Process:
        folder = self.folder / f"{name}-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return Process(self.service, name, folder)

    @contextlib.contextmanager
    def schedulers_paused(self) -> Iterator[None]:
        schedulers = [self.process(name) for name in SCHEDULERS]
        for scheduler in schedulers:
            scheduler.pause()
        try:
            yield
        finally:
            for scheduler in schedulers:
                scheduler.resume()

    def upload(self, path: Path, name: str | None = None, **fields: str) -> str:
        job_id = self.service.upload(path, name, language="en", **fields)
        self.submitted.append(job_id)
        return job_id

    def wait(self, job_id: str, status: str = "COMPLETED", seconds: float = 90) -> dict[str, Any]:
        state = self.service.wait(job_id, seconds)
        assert state["status"] == status, f"{state}\n{self.service.logs()}"
        return state

    def sql(self, statement: str, **values: Any) -> list[Any]:
        return asyncio.run(self._sql(statement, values))

    async def _sql(self, statement: str, values: dict[str, Any]) -> list[Any]:
        url = self.service.environment["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
        database = Database(url)
        try:
            async with database.write() as session:
                result = await session.execute(text(statement), values)
                return list(result.all()) if result.returns_rows else []  # type: ignore[attr-defined]
        finally:
            await database.stop()

    def attempts(self, job_id: str) -> dict[int, int]:
        """Return the number of claims of each completed chunk."""
        rows = self.sql(f"SELECT chunk_index, attempts FROM chunks WHERE job_id = '{job_id}' AND status = 'COMPLETED'")
        return {row[0]: row[1] for row in rows}

    @contextlib.asynccontextmanager
    async def application(self) -> AsyncIterator[Application]:
        """Build an application on the service's stores for the test's own use."""
        stores = {name.lower(): value for name, value in self.service.environment.items() if name in STORES}
        minio = {name.lower(): value for name, value in self.service.environment.items() if name.startswith("MINIO_")}
        app = bootstrap.build(
            load_settings(_env_file=None, retry_delay_seconds=0.2, retry_backoff_multiplier=1.5, **stores, **minio)
        )
        try:
            yield app
        finally:
            await app.stop()

    def publish_wake_ups(self, job_id: str, copies: int = 1, chunks: tuple[int, ...] = ()) -> None:
        """Publish `copies` wake-ups of the job, or of the given chunks."""
        asyncio.run(self._publish_wake_ups([WakeUp(job_id, index, 0) for index in chunks or (None,)] * copies))

    async def _publish_wake_ups(self, rows: list[WakeUp]) -> None:
        async with self.application() as app:
            await app.broker.start()
            async with app.database.read() as session:
                jobs_by_id = await jobs.get_many(session, {row.job_id for row in rows})
            for row in rows:
                await app.broker.publish(publishing.message_for(jobs_by_id[row.job_id], row))

    def expire_claims(self, job_id: str) -> None:
        for table in ("jobs", "chunks"):
            past = "now() - interval '1 second'"
            self.sql(f"UPDATE {table} SET due_at = {past} WHERE job_id = '{job_id}' AND due_at IS NOT NULL")

    def objects(self, job_id: str) -> Counter[str]:
        """Return the number of the job's objects in the bucket by folder."""
        environment = self.service.environment
        client = Client(
            environment["MINIO_ENDPOINT"],
            environment["MINIO_ACCESS_KEY"],
            environment["MINIO_SECRET_KEY"],
            secure=False,
        )
        bucket = environment["MINIO_BUCKET"]
        # list the folders first: listing a bucket that a thousand jobs have used is slow
        folders = [str(item.object_name) for item in client.list_objects(bucket) if item.is_dir]
        return Counter(
            folder.rstrip("/")
            for folder in folders
            for _ in client.list_objects(bucket, f"{folder}{job_id}/", recursive=True)
        )

    def queue_path(self, name: str) -> str:
        """Return the management API's path of a queue."""
        return f"/api/queues/{urlsplit(self.service.environment['RABBITMQ_URL']).path.lstrip('/')}/{name}"

    def collect_abandoned(self) -> None:
        """Expire all intents and collect their objects."""
        self.sql("UPDATE upload_intents SET expires_at = now() - interval '1 second'")
        asyncio.run(self._collect_abandoned())

    async def _collect_abandoned(self) -> None:
        async with self.application() as app:
            await app.storage.start()
            await app.retention.collect_abandoned_objects()

    def check(self) -> None:
        """Check the invariants that `tests/faults/README.md` lists."""
        asyncio.run(self._check_rows())
        self.collect_abandoned()
        for job_id in self.submitted:
            self._check_objects(job_id)
        self._check_files()

    async def _check_rows(self) -> None:
        async with self.application() as app:
            await invariants.check(app.database)
            async with app.database.read() as session:
                for job_id in self.submitted:
                    job = (await session.execute(select(Job).where(Job.job_id == job_id))).scalar_one()
                    chunks = (await session.execute(select(Chunk).where(Chunk.job_id == job_id))).scalars().all()
                    names = (await session.execute(select(Metric.metric_name).where(Metric.job_id == job_id))).scalars()
                    check_job(job, list(chunks), Counter(names))

    def _check_objects(self, job_id: str) -> None:
        [(status, deleted)] = self.sql(f"SELECT status, deleted_at FROM jobs WHERE job_id = '{job_id}'")
        expected = {"uploads": 1, "results": 2} if status == JobStatus.COMPLETED else {"uploads": 1}
        expected = {} if deleted else expected
        actual: Counter[str] = Counter()

        def matches() -> bool:
            nonlocal actual
            actual = self.objects(job_id)
            # a job that can be reopened keeps its working audio; every prepared one has peaks
            others = {"work": 0, "peaks": 0}
            return {**actual, **others} == {**expected, **others} and (
                status != JobStatus.COMPLETED or not actual["work"]
            )

        with contextlib.suppress(TimeoutError):
            wait_until(matches, "the bucket holds the expected objects", 10)
        assert matches(), f"{status}: {dict(actual)}"

    def _check_files(self) -> None:
        """Check that every folder left belongs to a running consumer and contains only its marker."""
        root = Path(self.service.environment["TEMP_DIR"])
        if not root.exists():
            return
        sweep = Workspace(root, "sweep")
        sweep.open()
        sweep.close()

        def empty() -> bool:
            return all(path.name == MARKER for path in sweep.root.glob("*/*"))

        wait_until(empty, f"the folders contain no files: {sorted(sweep.root.glob('*/*'))}", 10)

    def stop(self) -> None:
        for process in self.consumers:
            if process.name in self.service.processes:
                process.resume()
                process.release()
                self.service.kill(process.name)


def check_job(job: Job, chunks: list[Chunk], metrics: Counter[str]) -> None:
    """Check that the job has ended, with one commit per completed chunk, one result and gapless event numbers."""
    assert job.status in TERMINAL, f"{job.job_id} is {job.status}"
    completed = [chunk for chunk in chunks if chunk.status == JobStatus.COMPLETED]
    assert metrics["chunk_seconds"] == len(completed), "a chunk was committed twice"
    assert metrics["total_seconds"] == (job.status == JobStatus.COMPLETED), "a completed job has one result"
    numbers = sorted(chunk.event_seq for chunk in completed)
    assert len(set(numbers)) == len(numbers)
    if job.status == JobStatus.COMPLETED and not (job.retry_count or job.deleted_at or job.chunks_expected):
        # one event for the plan, one per chunk, one for completion; each instalment of a plan has one more
        assert numbers == list(range(2, len(completed) + 2))
        assert job.event_seq == len(completed) + 2
    assert all(number < job.event_seq for number in numbers)


@contextlib.contextmanager
def open_harness(service: Service, folder: Path) -> Iterator[Harness]:
    """Yield a harness and kill its consumers at the end. The checks run only if the test itself passed."""
    harness = Harness(service, folder)
    try:
        yield harness
        harness.check()
    finally:
        harness.stop()
