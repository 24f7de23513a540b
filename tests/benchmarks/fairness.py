"""Waiting times of a ten-second clip behind a long recording, and of a mixed backlog by priority."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path

from sqlalchemy import select

from core.database import Database
from repositories.models import Chunk, Job
from tests.benchmarks.overhead import real
from tests.benchmarks.table import Row
from tests.e2e.service import Service
from tests.servers.base import wait_until
from tests.speech import encode, recording

CLIPS = 10
EACH = 10


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lecture = encode(recording("en", 400, seed=6)[0], folder / "lecture.flac")
        clip = encode(recording("en", 3, seed=7, pause=0.6)[0], folder / "clip.flac")
        with real(folder / "real", WORKER_CONCURRENCY="1") as (service, url):
            service.transcribe(clip, language="en")
            return [behind(service, url, lecture, clip), *by_priority(service, url, clip)]


def behind(service: Service, url: str, lecture: Path, clip: Path) -> Row:
    """Submit clips one after another while a long recording runs on the only slot."""
    long_recording = service.upload(lecture, language="en")
    wait_until(lambda: service.status(long_recording)["chunks_completed"] >= 17, "seventeen chunks are completed", 120)
    clips = []
    for _ in range(CLIPS):
        clips.append(service.upload(clip, language="en"))
        service.wait(clips[-1])
    assert service.status(long_recording)["status"] == "PROCESSING", "the long recording ended before the last clip"
    service.wait(long_recording, 300)
    waits, chunk = asyncio.run(waiting(url, clips)), asyncio.run(chunk_seconds(url, long_recording))
    return Row(
        "a ten-second clip starts while a long recording is transcribed, one slot",
        f"{statistics.median(waits):.2f} s",
        f"worst {max(waits):.2f} s; one chunk of the recording takes {chunk:.2f} s",
        "≤ one chunk",
    )


def by_priority(service: Service, url: str, clip: Path) -> list[Row]:
    """Submit thirty clips at once, the low-priority ones first."""
    names = {
        name: [service.upload(clip, language="en", priority=name) for _ in range(EACH)]
        for name in ("low", "normal", "high")
    }
    for job_ids in names.values():
        for job_id in job_ids:
            service.wait(job_id, 300)
    waits = {name: statistics.mean(asyncio.run(waiting(url, job_ids))) for name, job_ids in names.items()}
    return [
        Row(
            f"mean wait of {3 * EACH} clips submitted at once, low first: high",
            f"{waits['high']:.2f} s",
            f"normal {waits['normal']:.2f} s, low {waits['low']:.2f} s",
            "high < normal < low",
        )
    ]


async def waiting(url: str, job_ids: list[str]) -> list[float]:
    """Return the seconds from each submit to the start of its first chunk."""
    database = Database(url)
    columns = (Chunk.processed_at, Chunk.seconds, Job.created_at)
    statement = select(*columns).join(Job, Job.job_id == Chunk.job_id)
    async with database.read() as session:
        rows = (await session.execute(statement.where(Chunk.job_id.in_(job_ids), Chunk.chunk_index == 0))).all()
    await database.stop()
    return [(row.processed_at - row.created_at).total_seconds() - row.seconds for row in rows]


async def chunk_seconds(url: str, job_id: str) -> float:
    """Return the median seconds that one chunk of the job takes."""
    database = Database(url)
    async with database.read() as session:
        seconds_by_chunk = list((await session.execute(select(Chunk.seconds).where(Chunk.job_id == job_id))).scalars())
    await database.stop()
    return statistics.median(seconds for seconds in seconds_by_chunk if seconds is not None)
