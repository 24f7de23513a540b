"""CPU time of an API process whose clients follow a long recording while its chunks are committed."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from unittest import mock

from core.database import Database
from internal.api.routes.events import _encode
from internal.services import job_watcher
from internal.services.estimates import Estimator
from internal.services.job_events import JobEvents
from internal.services.job_views import JobViews
from internal.services.job_watcher import JobWatcher
from repositories import commits
from repositories.commits import ChunkOutcome
from tests.benchmarks.table import Row
from tests.contract import rows
from tests.contract.databases import migrated

SIZES = ((1, 200), (6, 50))
"""Hours of the recording, and readers."""
CHUNK_SECONDS, SEGMENT_SECONDS = 29, 4
SEGMENT = {"text": "nine or ten words were said in these four seconds", "confidence": 0.9}


def run() -> list[Row]:
    # commits follow each other faster than in a service, and so do the polls
    with mock.patch.object(job_watcher, "POLL_INTERVAL", 0.005):
        return [asyncio.run(measure(hours, readers)) for hours, readers in SIZES]


async def measure(hours: int, readers: int) -> Row:
    chunks = hours * 3600 // CHUNK_SECONDS
    alone = await cpu_seconds(chunks, 0)
    seconds = await cpu_seconds(chunks, readers) - alone
    name = f"CPU time of the API for {readers} readers of a recording of {hours} h"
    return Row(name, f"{seconds:.1f} s", f"{chunks} commits, which take {alone:.1f} s more", "one merge per commit")


class Client:
    """A reader of the stream. segments: number of those received."""

    def __init__(self, events: JobEvents, views: JobViews, job_id: str) -> None:
        self.segments, self._changed = 0, asyncio.Event()
        self.task = asyncio.create_task(self._read(events, views, job_id))

    async def _read(self, events: JobEvents, views: JobViews, job_id: str) -> None:
        async for data in _encode(events.follow(job_id, 0), views, "en"):
            self.segments += data.startswith(b"event: segment")
            self._changed.set()

    async def wait_for(self, segments: int) -> None:
        while self.segments < segments:
            self._changed.clear()
            await self._changed.wait()


async def cpu_seconds(chunks: int, readers: int) -> float:
    """Return the CPU seconds of this process. A chunk is committed when every reader has received the one before."""
    with tempfile.TemporaryDirectory() as folder:
        async with migrated(f"sqlite+aiosqlite:///{Path(folder)}/stt.db") as database:
            job_id = await rows.planned_job(database, chunks)
            events, views = JobEvents(database, JobWatcher(database)), JobViews(Estimator(database), database)
            clients = [Client(events, views, job_id) for _ in range(readers)]
            started, segments = time.process_time(), 0
            for index in range(chunks):
                segments += await commit(database, job_id, index)
                for client in clients:
                    await client.wait_for(segments)
            await rows.finalise(database, job_id)
            await asyncio.gather(*(client.task for client in clients))
            return time.process_time() - started


async def commit(database: Database, job_id: str, index: int) -> int:
    """Commit a chunk; return the number of its segments."""
    claimed = await rows.claim(database, job_id, index)
    assert claimed is not None
    starts = range(index * CHUNK_SECONDS, (index + 1) * CHUNK_SECONDS, SEGMENT_SECONDS)
    segments = [{**SEGMENT, "start": float(start), "end": float(start + SEGMENT_SECONDS - 1)} for start in starts]
    async with database.write() as session:
        outcome = ChunkOutcome(segments, 0.5, "en", {})
        assert await commits.commit_chunk(session, claimed, outcome, pin_language=False)
    return len(segments)
