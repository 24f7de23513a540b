"""One run of the scaling benchmark in a process of its own: `python -m tests.benchmarks.scaling_run FOLDER FILE JOBS`.

Submits the file as many times as asked to a consumer in this process, with an engine that does no work, and prints the
figures as JSON once all jobs are completed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import resource
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from core.config import load_settings
from core.domain.job import JobStatus
from core.messaging.memory import MemoryBroker
from core.messaging.port import Message
from internal import bootstrap
from internal.bootstrap import Application
from migrations.run import upgrade
from repositories.models import Chunk, Job, Metric

BLOCK = 1024 * 1024
POLL_SECONDS = 0.2
_publish = MemoryBroker.publish


class Messages:
    """The number of messages that the broker has accepted."""

    count = 0


async def publish_counted(broker: MemoryBroker, message: Message, **more: Any) -> None:
    await _publish(broker, message, **more)
    Messages.count += 1


async def run(folder: Path, file: Path, count: int) -> dict[str, float]:
    async with service(folder) as app:
        await complete(app, file, 1)  # loads modules and compiles statements
        cpu, messages, rows = cpu_seconds(), Messages.count, await count_rows(app)
        await complete(app, file, count)
        return {
            "cpu": cpu_seconds() - cpu,
            "memory": peak_memory(),
            "messages": Messages.count - messages,
            "rows": await count_rows(app) - rows,
            "audio": count * await audio_seconds(app),
        }


@contextlib.asynccontextmanager
async def service(folder: Path) -> AsyncIterator[Application]:
    """Run everything but the HTTP server."""
    unlimited = dict.fromkeys(("max_queued_jobs", "max_queued_seconds", "max_bytes_per_day", "max_prepared_seconds"), 0)
    settings = load_settings(
        _env_file=None,
        data_dir=folder / "data",
        temp_dir=folder / "tmp",
        engine="tests.benchmarks.instant_engine",
        log_level="ERROR",
        **unlimited,
    )
    app = bootstrap.build(settings)
    await upgrade(app.database)
    consumer, scheduler = bootstrap.consumer(app), bootstrap.scheduler(app)
    await consumer.start()
    await scheduler.start()
    try:
        yield app
    finally:
        await scheduler.stop()
        await consumer.stop()
        await app.stop()


async def complete(app: Application, file: Path, count: int) -> None:
    """Submit the file `count` times and wait until all jobs are completed."""
    before = await count_jobs(app, JobStatus.COMPLETED)
    for _ in range(count):
        await submit(app, file)
    while await count_jobs(app, JobStatus.COMPLETED) < before + count:
        assert await count_jobs(app, JobStatus.FAILED) == 0
        await asyncio.sleep(POLL_SECONDS)


async def submit(app: Application, file: Path) -> None:
    submissions = app.services.submissions
    options = await app.services.submit_options.validate({"language": "en"})
    upload = submissions.new_upload()
    await upload.begin(file.name)
    with file.open("rb") as source:
        while block := source.read(BLOCK):
            await upload.write(block)
    await submissions.submit_upload(upload, "local", options)


async def count_jobs(app: Application, status: JobStatus) -> int:
    async with app.database.read() as session:
        return (await session.execute(select(func.count()).where(Job.status == status))).scalar_one()


async def count_rows(app: Application) -> int:
    async with app.database.read() as session:
        counts = [select(func.count()).select_from(table) for table in (Job, Chunk, Metric)]
        return sum([(await session.execute(count)).scalar_one() for count in counts])


async def audio_seconds(app: Application) -> float:
    async with app.database.read() as session:
        return (await session.execute(select(func.max(Job.audio_duration_seconds)))).scalar_one() or 0.0


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and its decoders, not that of the engine, which still runs."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_memory() -> float:
    """Return this process's peak memory in MB. That of getrusage is inherited from the parent."""
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) / 1024


if __name__ == "__main__":
    MemoryBroker.publish = publish_counted  # type: ignore[method-assign, assignment]
    print(json.dumps(asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))))
