"""A single poll per API process for all jobs that its clients wait for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from core.errors import InfrastructureError
from repositories import jobs

log = structlog.get_logger(__name__)
ListStates = Callable[[AsyncSession, Collection[str]], Awaitable[dict[str, tuple[int, bool]]]]
"""A query that returns by job the number of its last change, and True if no further one is expected."""
POLL_INTERVAL = 0.25
"""Seconds between two polls."""


@dataclass(slots=True)
class Watch:
    """State of a watched job. seq: greatest event number seen; ended: no further change is expected."""

    seq: int = -1
    ended: bool = False
    watchers: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_for_change(self, seq: int, timeout: float) -> bool:
        """Wait until the event number exceeds `seq`; return False after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self.changed:
                await self.changed.wait_for(lambda: self.seq > seq)
        return self.seq > seq


class JobWatcher:
    """Watches jobs by polling the database. Polls only while a job is watched."""

    def __init__(self, database: Database, list_states: ListStates = jobs.list_states) -> None:
        self._database, self._list_states = database, list_states
        self._watched: dict[str, Watch] = {}
        self._added = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        watch = self._watched.setdefault(job_id, Watch())
        watch.watchers += 1
        if watch.seq < 0:
            self._added.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="watch jobs")
        try:
            yield watch
        finally:
            watch.watchers -= 1
            if not watch.watchers:
                self._watched.pop(job_id, None)

    async def _run(self) -> None:
        while self._watched:
            await self._try_poll(tuple(self._watched))
            next_poll = asyncio.get_running_loop().time() + POLL_INTERVAL
            while await self._is_added_before(next_poll):
                # jobs that are new are polled at once, the others are not
                await self._try_poll([job_id for job_id, watch in self._watched.items() if watch.seq < 0])

    async def _is_added_before(self, end: float) -> bool:
        """Wait until a job is added; return False if none is until `end`, in seconds of the event loop."""
        try:
            async with asyncio.timeout_at(end):
                return await self._added.wait()
        except TimeoutError:
            return False

    async def _try_poll(self, job_ids: Collection[str]) -> None:
        self._added.clear()
        try:
            await self._poll(job_ids)
        except InfrastructureError as error:
            log.warning("cannot poll watched jobs", action="watch_skipped", code=error.code)
        except Exception:
            # if the task ended, its watchers would wait forever
            log.exception("cannot poll watched jobs", action="watch_skipped")

    async def _poll(self, job_ids: Collection[str]) -> None:
        async with self._database.read() as session:
            states = await self._list_states(session, tuple(job_ids))
        for job_id in job_ids:
            watch = self._watched.get(job_id)
            if watch is None:
                continue
            # a purged job is missing: one last change, after which it has ended
            seq, ended = states.get(job_id, (watch.seq + 1 if not watch.ended else watch.seq, True))
            if seq > watch.seq:
                watch.seq, watch.ended = seq, ended
                async with watch.changed:
                    watch.changed.notify_all()
