"""Removal of expired and deleted jobs, and of abandoned objects."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from core.database import Database
from core.domain import keys
from core.errors import InfrastructureError, ObjectRefusedError
from core.storage.port import Storage
from repositories import deletion, intents, jobs, metric_retention, parking

log = structlog.get_logger(__name__)
COLLECT, EXPIRE, PURGE = "collect", "expire", "forget"
"""Names of the steps under which failing items are parked."""
STEP_SECONDS = 40.0
"""Seconds that one step of removal may take in one round of housekeeping, after which the next step has its turn."""
PURGED = 20
"""Number of jobs whose rows are removed in one transaction; a recording of six hours has 4,000."""
CONCURRENT = 8
"""Number of items that are removed at once."""


async def remove_objects(storage: Storage, job_id: str) -> None:
    """Remove every object of the job. Raises StorageUnavailable."""
    for prefix in keys.job_prefixes(job_id):
        await storage.delete_prefix(prefix)


@dataclass(frozen=True, slots=True)
class Retention:
    """Periodic removal. A failing item is parked and does not stop the others; an outage ends the step.

    metric_ttl: seconds that measurements are kept, 0 for ever.
    """

    database: Database
    storage: Storage
    metric_ttl: float = 0.0

    async def delete_old_metrics(self) -> None:
        """Delete measurements that are over `metric_ttl` seconds old (0: none)."""
        end = time.monotonic() + STEP_SECONDS
        count = metric_retention.BATCH if self.metric_ttl else 0
        while count == metric_retention.BATCH and time.monotonic() < end:
            async with self.database.write() as session:
                count = await metric_retention.delete_old(session, self.metric_ttl)

    async def expire_jobs(self) -> None:
        """Hide expired jobs and remove their objects. `purge_deleted_jobs` removes the rest a day later."""

        async def expire(job_id: str) -> None:
            await remove_objects(self.storage, job_id)

        async def hide() -> list[str]:
            async with self.database.write() as session:
                job_ids = await deletion.mark_expired(session)
            for job_id in job_ids:
                log.info("job expired", action="job_expired", job_id=job_id)
            return job_ids

        await self._in_batches(EXPIRE, hide, expire, self._remove_known_objects)

    async def purge_deleted_jobs(self) -> None:
        """Remove the rows of jobs hidden over a day ago, and objects that were written since."""

        async def purge(job_id: str) -> None:
            await remove_objects(self.storage, job_id)
            async with self.database.write() as session:
                await deletion.purge(session, [job_id])

        async def purge_together(job_ids: list[str]) -> list[str]:
            left = set(await self._remove_known_objects(job_ids))
            bare = [job_id for job_id in job_ids if job_id not in left]
            for start in range(0, len(bare), PURGED):
                async with self.database.write() as session:
                    await deletion.purge(session, bare[start : start + PURGED])
            return list(left)

        async def hidden() -> list[str]:
            async with self.database.read() as session:
                return await deletion.list_purgeable(session, without=await parking.list_parked(session, PURGE))

        await self._in_batches(PURGE, hidden, purge, purge_together)

    async def _remove_known_objects(self, job_ids: list[str]) -> list[str]:
        """Remove all objects of those jobs whose keys are known, in one request; return the other jobs."""
        async with self.database.read() as session:
            objects = await deletion.list_objects(session, job_ids)
        try:
            await self.storage.delete_many([key for of_job in objects.values() for key in of_job])
        except (InfrastructureError, ObjectRefusedError):
            return job_ids  # one by one, so that one that fails does not hold up the others
        return [job_id for job_id in job_ids if job_id not in objects]

    async def collect_abandoned_objects(self) -> None:
        """Remove the objects of expired intents: uploads without a job, and leftovers of interrupted steps."""

        async def collect(key: str) -> None:
            if await self.collect_expired(key):
                log.info("abandoned object removed", action="intent_collected", key=key)

        async def expired() -> list[str]:
            async with self.database.read() as session:
                parked = await parking.list_parked(session, COLLECT)
                return [intent.key for intent in await intents.list_expired(session, without=parked)]

        await self._in_batches(COLLECT, expired, collect)

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

    async def _in_batches(
        self,
        step: str,
        next_batch: Callable[[], Awaitable[list[str]]],
        work: Callable[[str], Awaitable[None]],
        work_together: Callable[[list[str]], Awaitable[list[str]]] | None = None,
    ) -> None:
        """Work through batches until one is empty, or for STEP_SECONDS. Raises InfrastructureError as `_attempt`.

        work_together: work on a whole batch, which returns the items that are left to `work`.
        """
        end = time.monotonic() + STEP_SECONDS
        while time.monotonic() < end and (items := await next_batch()):
            if work_together is not None:
                items = await work_together(items)
            # schedulers that work through the same batch meet seldom: what one has removed costs the other little
            random.shuffle(items)
            for start in range(0, len(items), CONCURRENT):
                attempts = (self._attempt(step, item, work) for item in items[start : start + CONCURRENT])
                for failure in await asyncio.gather(*attempts, return_exceptions=True):
                    if failure is not None:
                        raise failure

    async def _attempt(self, step: str, item: str, work: Callable[[str], Awaitable[None]]) -> None:
        """Call `work` with the item. Raises InfrastructureError if the database or storage is down."""
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
