"""Renewal of this consumer's claims while their work runs, and the time limits of that work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import structlog

from core.database import Database
from core.errors import ChunkTimeoutError, InfrastructureError, JobTimeoutError
from core.tasks import cancel_and_wait
from internal.step_timer import StepTimer, step_timer
from repositories import leases
from repositories.claims import Claim

log = structlog.get_logger(__name__)
RETRY_DELAY = 1.0
"""Seconds between two attempts while the database is down, or a third of the lease if that is less."""


@dataclass(slots=True)
class _HeldClaim:
    """A claim that is being renewed. deadline: working seconds of its step; timer: set while the work runs."""

    deadline: float
    timer: StepTimer | None = None


class Leases:
    """Background renewal of the held claims. `start` and `stop` are idempotent."""

    def __init__(self, database: Database, seconds: float, job_timeout: float) -> None:
        """seconds: length of a lease; job_timeout: working seconds of a step after which its job fails at once."""
        self.seconds = seconds
        self._database, self._job_timeout = database, job_timeout
        self._held: dict[Claim, _HeldClaim] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep_renewing(), name="renew leases")

    async def stop(self) -> None:
        task, self._task = self._task, None
        await cancel_and_wait(task)

    @contextlib.contextmanager
    def hold(self, claim: Claim, deadline: float) -> Iterator[None]:
        """Keep renewing the claim during the block. deadline: working seconds for `run`."""
        self._held[claim] = _HeldClaim(deadline)
        try:
            yield
        finally:
            del self._held[claim]

    async def run(self, claim: Claim, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work of a claim within its time limits; cancel it and return if its job has ended meanwhile.

        Raises ChunkTimeoutError after the step's deadline and JobTimeoutError after JOB_TIMEOUT_SECONDS.
        """
        held = self._held.get(claim, _HeldClaim(self._job_timeout))
        try:
            async with step_timer(min(held.deadline, self._job_timeout)) as timer:
                held.timer = timer
                await work()
        except TimeoutError as error:
            if not timer.expired:
                raise
            if timer.withdrawn:
                log.info("work stopped, its job has ended", action="withdrawn")
            elif held.deadline < self._job_timeout:
                raise ChunkTimeoutError from error
            else:
                raise JobTimeoutError from error
        finally:
            held.timer = None

    async def renew(self) -> None:
        """Renew all held claims in one transaction, and stop the work of ended jobs. Raises DatabaseUnavailable."""
        if not self._held:
            return
        async with self._database.write() as session:
            ended = await leases.renew(session, tuple(self._held), self.seconds)
        for claim in ended:
            held = self._held.get(claim)
            if held is not None and held.timer is not None:
                held.timer.withdraw()

    async def _keep_renewing(self) -> None:
        interval, failing = self.seconds / 3, False
        while True:
            try:
                # a query that hangs on a dead connection is repeated on a new one
                async with asyncio.timeout(max(interval, RETRY_DELAY)):
                    await self.renew()
                failing = False
            except (InfrastructureError, TimeoutError) as error:
                if not failing:
                    log.warning("leases cannot be renewed", action="renewal_failed", reason=repr(error))
                failing = True
            except Exception:
                log.exception("lease renewal failed", action="renewal_failed")
                failing = True
            await asyncio.sleep(min(interval, RETRY_DELAY) if failing else interval)
