"""Removal of expired and deleted jobs, and of abandoned objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog

from core.database import Database
from core.domain import keys
from core.errors import InfrastructureError
from core.storage.port import Storage
from repositories import deletion, intents, jobs, parking

log = structlog.get_logger(__name__)
COLLECT, EXPIRE, PURGE = "collect", "expire", "forget"
"""Names of the steps under which failing items are parked."""


async def remove_objects(storage: Storage, job_id: str) -> None:
    """Remove every object of the job. Raises StorageUnavailable."""
    for prefix in keys.job_prefixes(job_id):
        await storage.delete_prefix(prefix)


@dataclass(frozen=True, slots=True)
class Retention:
    """Periodic removal. A failing item is parked and does not stop the others; an outage ends the step."""

    database: Database
    storage: Storage

    async def expire_jobs(self) -> None:
        """Hide expired jobs and remove their objects. `purge_deleted_jobs` removes the rest a day later."""
        async with self.database.write() as session:
            expired = await deletion.mark_expired(session)

        async def expire(job_id: str) -> None:
            log.info("job expired", action="job_expired", job_id=job_id)
            await remove_objects(self.storage, job_id)

        await self._for_each(EXPIRE, expired, expire)

    async def purge_deleted_jobs(self) -> None:
        """Remove the rows of jobs hidden over a day ago, and objects that were written since."""

        async def purge(job_id: str) -> None:
            await remove_objects(self.storage, job_id)
            async with self.database.write() as session:
                await deletion.purge(session, job_id)

        async with self.database.read() as session:
            hidden = await deletion.list_purgeable(session, without=await parking.list_parked(session, PURGE))
        await self._for_each(PURGE, hidden, purge)

    async def collect_abandoned_objects(self) -> None:
        """Remove the objects of expired intents: uploads without a job, and leftovers of interrupted steps."""

        async def collect(key: str) -> None:
            if await self.collect_expired(key):
                log.info("abandoned object removed", action="intent_collected", key=key)

        async with self.database.read() as session:
            expired = await intents.list_expired(session, without=await parking.list_parked(session, COLLECT))
        await self._for_each(COLLECT, [intent.key for intent in expired], collect)

    async def collect_expired(self, key: str) -> bool:
        """Remove the object of an expired intent, unless a job refers to it; return whether it was removed."""
        async with self.database.write() as session:
            if not await intents.lock_expired(session, key):
                return False
            if await jobs.references_object(session, key):
                await intents.delete(session, key)
                return False
        await self.remove_object(key)
        return True

    async def remove_object(self, key: str) -> None:
        """Remove an object and its unfinished uploads, then its intent. Raises StorageUnavailable."""
        await self.storage.delete_prefix(key)
        async with self.database.write() as session:
            await intents.delete(session, key)

    async def _for_each(self, step: str, items: Sequence[str], work: Callable[[str], Awaitable[None]]) -> None:
        """Call `work` with every item. Raises InfrastructureError if the database or storage is down."""
        for item in items:
            try:
                await work(item)
            except Exception as error:  # noqa: BLE001
                if isinstance(error, InfrastructureError):
                    # an error of one object looks like an outage, but only a failing ping is one
                    await self.database.ping()
                    await self.storage.ping()
                async with self.database.write() as session:
                    pause = await parking.park(session, step, item, repr(error))
                reason = repr(error)
                log.error("item failed, parked", action="parked", step=step, item=item, reason=reason, pause=pause)  # noqa: TRY400
            else:
                async with self.database.write() as session:
                    await parking.unpark(session, step, item)
