"""Prints what was accepted, how it ended, what was done twice, and each process's memory at start and end."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sqlalchemy import func, select

from core.database import Database
from core.domain.job import OPEN, JobStatus
from repositories.models import Chunk, Job, Metric
from tests.contract import invariants
from tests.e2e import service as services
from tests.e2e.service import Service
from tests.servers import minio, postgres, rabbitmq
from tests.servers.base import Server
from tests.speech import encode, recording, silence, write_wav

MINUTES = 15.0
KILL_EVERY = 20.0
SETTLE_SECONDS = 900.0
PROCESSES = {
    "api": "api",
    "consumer": "consumer",
    "consumer-2": "consumer",
    "scheduler": "scheduler",
    "scheduler-2": "scheduler",
}
console = Console()


@dataclass
class Soak:
    service: Service
    servers: dict[str, Server]
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    accepted: list[str] = field(default_factory=list)
    kills: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)

    def submit_all_the_time(self, files: list[Path], seed: int) -> None:
        """One sender: a recording now and then, sometimes cancelled or deleted, always with a key to try again."""
        rng = random.Random(seed)
        while not self.over.is_set():
            job_id = self._submit(rng.choice(files), rng.choice(["high", "normal", "low"]))
            if job_id:
                self.accepted.append(job_id)
                if rng.random() < 0.05:
                    self._ask("POST", f"/api/v1/jobs/{job_id}/cancel")
            time.sleep(rng.uniform(0.5, 3.0))

    def _submit(self, path: Path, priority: str) -> str | None:
        key, data = uuid.uuid4().hex, path.read_bytes()
        while not self.over.is_set():
            answer = self._ask(
                "POST",
                "/api/v1/upload",
                files={"file": (path.name, data)},
                data={"language": "en", "priority": priority},
                headers={"Idempotency-Key": key},
            )
            if answer is not None and answer.status_code == 200:
                return str(answer.json()["job_id"])
            time.sleep(1)
        return None

    def _ask(self, method: str, path: str, **more: object) -> httpx.Response | None:
        with contextlib.suppress(httpx.TransportError):
            return httpx.request(method, self.service.url + path, timeout=30, **more)  # type: ignore[arg-type]
        return None

    def kill_something(self) -> None:
        """kill -9 of a process of ours or of a server; it is started again at once."""
        name = self.rng.choice([*PROCESSES, "consumer", "consumer-2", *self.servers])
        self.kills[name] += 1
        if name in self.servers:
            self.servers[name].kill()
            self.servers[name].start()
        else:
            self.service.kill(name)
            self.service.start(name, PROCESSES[name])

    def memory(self) -> dict[str, float]:
        """Resident MB by process, its children included."""
        found = {}
        for name, process in self.service.processes.items():
            tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            found[name] = sum(one.memory_info().rss for one in tree) / 1e6
        return found

    def run(self, minutes: float, files: list[Path]) -> None:
        senders = [threading.Thread(target=self.submit_all_the_time, args=(files, n), daemon=True) for n in range(3)]
        for sender in senders:
            sender.start()
        end = time.monotonic() + minutes * 60
        with Progress(console=console) as progress:
            bar = progress.add_task("soaking", total=minutes * 60)
            while (left := end - time.monotonic()) > 0:
                time.sleep(min(KILL_EVERY, left))
                self.kill_something()
                progress.update(bar, completed=minutes * 60 + time.monotonic() - end)
        self.over.set()
        for sender in senders:
            sender.join(60)

    async def settle(self) -> None:
        """Wait until every accepted job has ended."""
        database = self.database()
        end = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            async with database.read() as session:
                waiting = select(func.count()).select_from(Job).where(Job.status.in_(OPEN), Job.deleted_at.is_(None))
                if not (await session.execute(waiting)).scalar_one():
                    break
            await asyncio.sleep(1)
        await invariants.check(database)
        await database.stop()

    def database(self) -> Database:
        return Database(self.service.environment["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"))

    async def report(self, before: dict[str, float], after: dict[str, float], minutes: float) -> bool:
        database = self.database()
        async with database.read() as session:
            ended = {
                row[0]: row[1] for row in await session.execute(select(Job.status, func.count()).group_by(Job.status))
            }
            missing = set(self.accepted) - set((await session.execute(select(Job.job_id))).scalars())
            chunks = select(func.count(), func.coalesce(func.sum(Chunk.attempts), 0)).where(
                Chunk.status == JobStatus.COMPLETED
            )
            finished, attempts = (await session.execute(chunks)).one()
            commits = select(func.count()).where(Metric.metric_name == "chunk_seconds")
            committed = (await session.execute(commits)).scalar_one()
        await database.stop()
        stuck = sum(ended.get(status, 0) for status in OPEN)
        table = Table("what", "figure", title=f"{minutes:g} minutes of soak, {datetime.now(UTC).date()}")
        table.add_row("jobs accepted", str(len(self.accepted)))
        for status in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
            table.add_row(f"jobs {status}", str(ended.get(status, 0)))
        table.add_row("jobs lost, jobs not ended", f"{len(missing)}, {stuck}")
        table.add_row("chunks finished, runs of them", f"{finished}, {attempts} ({attempts - finished} redone)")
        table.add_row("chunks committed twice", str(committed - finished))
        table.add_row("kills", ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items())))
        for name in after:
            table.add_row(f"memory of {name}, MB", f"{before.get(name, 0):.0f} → {after[name]:.0f}")
        console.print(table)
        return not missing and not stuck and committed == finished


def recordings(folder: Path) -> list[Path]:
    """Clips, a lecture, silence, and what is no recording."""
    clips = [
        encode(recording("en", count, seed=count, pause=0.6)[0], folder / f"clip-{count}.mp3") for count in (1, 1, 3, 8)
    ]
    long = encode(recording("en", 40, seed=9)[0], folder / "long.flac")
    nonsense = folder / "nonsense.mp3"
    nonsense.write_bytes(b"no sound at all " * 500)
    return [*clips, *clips, long, write_wav(folder / "silence.wav", silence(5)), nonsense]


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else MINUTES
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        found = {"postgresql": postgres.find(), "rabbitmq": rabbitmq.find(), "minio": minio.find()}
        for server in found.values():
            stack.callback(server.remove)
        stores = services.stores_of(found["postgresql"], found["rabbitmq"], found["minio"])  # type: ignore[arg-type]
        more = {"WORKER_CONCURRENCY": "1", "RESULT_TTL": "0"}
        service = stack.enter_context(services.on_real_parts(folder, stores | more, ("api", "consumer", "scheduler")))
        service.start("consumer-2", "consumer")
        service.start("scheduler-2", "scheduler")
        servers = {key: server for key, server in found.items() if isinstance(server, Server)}
        soak = Soak(service, servers)
        time.sleep(10)  # until the last one has loaded what it needs
        before = soak.memory()
        soak.run(minutes, recordings(folder))
        asyncio.run(soak.settle())
        return 0 if asyncio.run(soak.report(before, soak.memory(), minutes)) else 1


if __name__ == "__main__":
    sys.exit(main())
