"""The claims that this consumer holds: renewed while their work runs, bounded in the time they may work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import structlog

from core.database import Database
from core.errors import ChunkTimeoutError, InfrastructureError, JobTimeoutError
from internal.step_timer import StepTimer, step_timer
from repositories import leases
from repositories.claims import Claim

log = structlog.get_logger(__name__)
RETRY_PAUSE = 1.0
"""Seconds between two tries while the database does not answer, or a third of the lease where that is less."""


@dataclass(slots=True)
class _Held:
    """deadline: active seconds of the step; timer: of its work, while that runs."""

    deadline: float
    timer: StepTimer | None = None


class Leases:
    """`start`, then `stop`; both are harmless when repeated."""

    def __init__(self, database: Database, seconds: float, job_timeout: float) -> None:
        """seconds: of a lease; job_timeout: active seconds of a step after which its job fails for good."""
        self.seconds = seconds
        self._database, self._job_timeout = database, job_timeout
        self._held: dict[Claim, _Held] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_renewing(), name="renew leases")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    @contextlib.contextmanager
    def held(self, claim: Claim, deadline: float) -> Iterator[None]:
        """Renew the claim until the end of the block. deadline: seconds its work may take, waiting not counted."""
        self._held[claim] = _Held(deadline)
        try:
            yield
        finally:
            del self._held[claim]

    async def timed(self, claim: Claim, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a claim within its time; returns early where its job has ended meanwhile.

        Raises ChunkTimeoutError past the step's deadline and JobTimeoutError past JOB_TIMEOUT_SECONDS.
        """
        held = self._held.get(claim, _Held(self._job_timeout))
        try:
            async with step_timer(min(held.deadline, self._job_timeout)) as timer:
                held.timer = timer
                await work()
        except TimeoutError as error:
            if not timer.expired:
                raise
            if timer.withdrawn:
                log.info("the job has ended, its work is stopped", action="withdrawn")
            elif held.deadline < self._job_timeout:
                raise ChunkTimeoutError from error
            else:
                raise JobTimeoutError from error
        finally:
            held.timer = None

    async def renew(self) -> None:
        """Renew every claim once, in one transaction. Raises DatabaseUnavailable."""
        if not self._held:
            return
        async with self._database.write() as session:
            ended = await leases.renew(session, tuple(self._held), self.seconds)
        for claim in ended:
            held = self._held.get(claim)
            if held is not None and held.timer is not None:
                held.timer.withdraw()

    async def _keep_renewing(self) -> None:
        every, failing = self.seconds / 3, False
        while True:
            try:
                # a call that hangs in a dead connection is given up for one on a new connection
                async with asyncio.timeout(max(every, RETRY_PAUSE)):
                    await self.renew()
                failing = False
            except (InfrastructureError, TimeoutError) as error:
                if not failing:
                    log.warning("claims cannot be renewed now", action="renewal_failed", reason=repr(error))
                failing = True
            except Exception:
                log.exception("renewal failed", action="renewal_failed")
                failing = True
            await asyncio.sleep(min(every, RETRY_PAUSE) if failing else every)
