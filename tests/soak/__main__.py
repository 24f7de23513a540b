"""Run the soak test and print accepted jobs, their outcomes, repeated work, and each process's memory."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import func, select

from core.database import Database
from core.domain.job import OPEN
from repositories.models import Job
from tests.contract import invariants
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import Server
from tests.soak import report
from tests.soak.hazards import Hazards, small_disk
from tests.speech import encode, recording, silence, write_wav

MINUTES = 15.0
HAZARD_EVERY = 20.0
SETTLE_SECONDS = 1200.0
LEASE_SECONDS = 15.0
JOB_TIMEOUT_SECONDS = 60.0
BACKLOG = 400
"""Low-priority clips submitted at the start: more than two consumers transcribe within JOB_TIMEOUT_SECONDS."""
PROCESSES = {
    "api": "api",
    "consumer": "consumer",
    "consumer-2": "consumer",
    "scheduler": "scheduler",
    "scheduler-2": "scheduler",
}
SETTINGS = {
    "WORKER_CONCURRENCY": "1",
    "RESULT_TTL_SECONDS": "0",
    "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "JOB_TIMEOUT_SECONDS": f"{JOB_TIMEOUT_SECONDS:g}",
}
console = Console()


@dataclass
class Clients:
    """Clients that submit, cancel and retry until `over` is set."""

    service: Service
    accepted: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def submit_repeatedly(self, files: list[Path], seed: int) -> None:
        """Submit a recording every few seconds; cancel one in twenty."""
        rng = random.Random(seed)
        while not self.over.is_set():
            job_id = self.submit(rng.choice(files), rng.choice(["high", "normal", "low"]))
            if job_id and rng.random() < 0.05:
                self._request("POST", f"/api/v1/jobs/{job_id}/cancel")
            time.sleep(rng.uniform(0.5, 3.0))

    def submit(self, path: Path, priority: str) -> str | None:
        """Retry with the same Idempotency-Key until the upload is accepted; return None once `over` is set."""
        key, data = uuid.uuid4().hex, path.read_bytes()
        while not self.over.is_set():
            answer = self._request(
                "POST",
                "/api/v1/upload",
                files={"file": (path.name, data)},
                data={"language": "en", "priority": priority},
                headers={"Idempotency-Key": key},
            )
            if answer is not None and answer.status_code == 200:
                self.accepted.append(str(answer.json()["job_id"]))
                return self.accepted[-1]
            time.sleep(1)
        return None

    def _request(self, method: str, path: str, **more: object) -> httpx.Response | None:
        with contextlib.suppress(httpx.TransportError):
            return httpx.request(method, self.service.url + path, timeout=30, **more)  # type: ignore[arg-type]
        return None


def soak(clients: Clients, hazards: Hazards, minutes: float, files: list[Path]) -> None:
    for _ in range(BACKLOG):
        clients.submit(files[0], "low")
    threads = [threading.Thread(target=clients.submit_repeatedly, args=(files, n), daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + minutes * 60
    with Progress(console=console) as progress:
        bar = progress.add_task("soaking", total=minutes * 60)
        while (remaining := end - time.monotonic()) > 0:
            time.sleep(min(HAZARD_EVERY, remaining))
            hazards.cause_next()
            progress.update(bar, completed=minutes * 60 + time.monotonic() - end)
    clients.over.set()
    for thread in threads:
        thread.join(60)


async def settle(database: Database) -> None:
    """Wait until every accepted job has ended, then check the invariants of the rows."""
    end = time.monotonic() + SETTLE_SECONDS
    waiting = select(func.count()).select_from(Job).where(Job.status.in_(OPEN), Job.deleted_at.is_(None))
    while time.monotonic() < end:
        async with database.read() as session:
            if not (await session.execute(waiting)).scalar_one():
                break
        await asyncio.sleep(1)
    await invariants.check(database)


async def settled_figures(url: str, accepted: list[str]) -> report.Figures:
    database = Database(url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        await settle(database)
        return await report.figures(database, accepted)
    finally:
        await database.stop()


def memory(service: Service) -> dict[str, float]:
    """Return resident memory in MB by process, children included."""
    resident = {}
    for name, process in service.processes.items():
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        resident[name] = sum(member.memory_info().rss for member in tree) / 1e6
    return resident


def recordings(folder: Path) -> list[Path]:
    """Create clips, a lecture, silence, and a file without audio."""
    clips = [
        encode(recording("en", count, seed=count, pause=0.6)[0], folder / f"clip-{count}.mp3") for count in (1, 1, 3, 8)
    ]
    long_recording = encode(recording("en", 40, seed=9)[0], folder / "long.flac")
    nonsense = folder / "nonsense.mp3"
    nonsense.write_bytes(b"no sound at all " * 500)
    return [*clips, *clips, long_recording, write_wav(folder / "silence.wav", silence(5)), nonsense]


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        disk = stack.enter_context(small_disk(folder / "tmp"))
        database, broker, storage = postgres.find(), rabbitmq.find(), minio.find()
        for server in (database, broker, storage):
            stack.callback(server.remove)
        stores = services.stores_of(database, broker, storage)
        kinds = ("api", "consumer", "scheduler")
        service = stack.enter_context(services.on_real_servers(folder, stores | SETTINGS, kinds))
        service.start("consumer-2", "consumer")
        service.start("scheduler-2", "scheduler")
        candidates = {"postgresql": database, "rabbitmq": broker, "minio": storage}
        servers = {name: server for name, server in candidates.items() if isinstance(server, Server)}
        hazards = Hazards(service, servers, PROCESSES, folder / "tmp", 2 * LEASE_SECONDS, disk)
        clients = Clients(service)
        time.sleep(10)  # until every process has loaded its modules
        before = memory(service)
        soak(clients, hazards, minutes, recordings(folder))
        figures = asyncio.run(settled_figures(service.environment["DATABASE_URL"], clients.accepted))
        after = {name: (before.get(name, 0.0), size) for name, size in memory(service).items()}
        console.print(report.table(figures, minutes, JOB_TIMEOUT_SECONDS, hazards.happened, disk, after))
        if not figures.passed(JOB_TIMEOUT_SECONDS):
            console.print(service.logs())
        return 0 if figures.passed(JOB_TIMEOUT_SECONDS) else 1


if __name__ == "__main__":
    sys.exit(main())
