"""Each API process polls once for all the jobs it watches, and wakes whoever waits (design section 8)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

from core.database import Database
from core.errors import InfrastructureError
from repositories import jobs

log = structlog.get_logger(__name__)
ROUND = 0.25


@dataclass(slots=True)
class Watch:
    """seq: the newest event number seen; ended: the job changes no more by itself."""

    seq: int = -1
    ended: bool = False
    watchers: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def past(self, seq: int, seconds: float) -> bool:
        """Wait until something newer than `seq` has happened; False: nothing has, for `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), self.changed:
                await self.changed.wait_for(lambda: self.seq > seq)
        return self.seq > seq


class Watcher:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._watched: dict[str, Watch] = {}
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def watch(self, job_id: str) -> AsyncIterator[Watch]:
        """The poll runs only while somebody watches."""
        found = self._watched.setdefault(job_id, Watch())
        found.watchers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._poll(), name="watch jobs")
        try:
            yield found
        finally:
            found.watchers -= 1
            if not found.watchers:
                self._watched.pop(job_id, None)

    async def _poll(self) -> None:
        while self._watched:
            try:
                await self._look()
            except InfrastructureError as error:
                log.warning("cannot look at watched jobs", action="watch_skipped", code=error.code)
            except Exception:
                # a poll that ended would leave its watchers waiting for ever
                log.exception("cannot look at watched jobs", action="watch_skipped")
            await asyncio.sleep(ROUND)

    async def _look(self) -> None:
        async with self._database.read() as session:
            found = await jobs.list_states(session, tuple(self._watched))
        for job_id, watch in tuple(self._watched.items()):
            seq, ended = found.get(job_id, (watch.seq + 1 if not watch.ended else watch.seq, True))
            if seq > watch.seq:
                watch.seq, watch.ended = seq, ended
                async with watch.changed:
                    watch.changed.notify_all()
