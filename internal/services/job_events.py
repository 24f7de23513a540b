"""Events of a job as they happen: finished segments in order of the recording, progress, the end of the job."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from core.database import Database
from core.domain.job import JobStatus
from internal.services.job_feed import JobEvent as JobEvent
from internal.services.job_feed import JobFeed
from internal.services.job_watcher import JobWatcher

KEEP_ALIVE_SECONDS = 15.0
"""Seconds without an event after which a keep-alive is sent."""
KEEP_ALIVE = "keep-alive"
FINAL = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class JobEvents:
    """Events of jobs, for any number of readers."""

    database: Database
    watcher: JobWatcher
    _feeds: dict[str, JobFeed] = field(default_factory=dict)

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[JobEvent]:
        """Yield the events after number `after` until the job has ended. A deleted job counts as cancelled."""
        seen = -1
        async with self.watcher.watch(job_id) as watch:
            with self._shared_feed(job_id) as feed:
                while True:
                    if not await watch.wait_for_change(seen, KEEP_ALIVE_SECONDS):
                        yield JobEvent(KEEP_ALIVE)
                        continue
                    await feed.update(watch.seq)
                    if feed.job is None:
                        yield JobEvent("cancelled")
                        return
                    seen = feed.seq
                    segments, after = feed.events_after(after), max(feed.number, after)
                    # a chunk that was committed between the two reads has a greater number than the job that was read
                    kind = FINAL.get(JobStatus(feed.job.status), "progress")
                    state = feed.state(kind, max(feed.job.event_seq, after))
                    for event in segments:
                        yield event
                    yield state
                    if kind != "progress":
                        return

    @contextlib.contextmanager
    def _shared_feed(self, job_id: str) -> Iterator[JobFeed]:
        """Share the job's feed between its readers; it is dropped with the last one."""
        feed = self._feeds.setdefault(job_id, JobFeed(self.database, job_id))
        feed.readers += 1
        try:
            yield feed
        finally:
            feed.readers -= 1
            if not feed.readers:
                self._feeds.pop(job_id, None)
