"""What every handler works with, and how a run that ended badly is settled (the error table's verdicts)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.errors import InfrastructureError, InternalError, Kind, MachineError, SttError, WhisperCrashError
from core.faults import machine_fault
from core.messaging.port import Ack, Delivery, Message, Retry, Verdict
from internal.bootstrap import Application
from internal.consumer.leases import Leases
from internal.consumer.machine_health import Delays, MachineHealth
from internal.consumer.quarantine import Quarantine
from internal.consumer.workspace import Workspace
from internal.outage_retry import OutageRetry
from internal.services import dead_letters
from repositories import claims, failures
from repositories.claims import MAX_LOST, Claim, ClaimedChunk, ClaimRequest
from repositories.models import Job
from repositories.transitions import RELEASE_DELAY
from worker.models import ModelCatalogue
from worker.pool import Pool

log = structlog.get_logger(__name__)
T = TypeVar("T")
HAND_BACK_SECONDS = 5.0
Taken = TypeVar("Taken", ClaimedChunk, tuple[Claim, Job])
ClaimStep = Callable[[AsyncSession, ClaimRequest], Awaitable[Taken | None]]


def claim_of(taken: ClaimedChunk | tuple[Claim, Job]) -> Claim:
    return taken.claim if isinstance(taken, ClaimedChunk) else taken[0]


@dataclass(frozen=True, slots=True)
class Context:
    """One consumer's own things."""

    parts: Application
    worker_id: str
    workspace: Workspace
    pool: Pool
    catalogue: ModelCatalogue
    outage_retry: OutageRetry
    leases: Leases
    quarantine: Quarantine = field(default_factory=Quarantine)
    health: MachineHealth = field(default_factory=MachineHealth)
    delays: Delays = field(default_factory=Delays)

    async def transaction(self, work: Callable[[AsyncSession, int], Awaitable[T]]) -> T:
        """Run `work(session, attempt)` in one write transaction, again while the database is away."""

        attempts = itertools.count()

        async def once() -> T:
            async with self.parts.database.write() as session:
                return await work(session, next(attempts))

        return await self.outage_retry.run(once)

    async def take(
        self,
        delivery: Delivery,
        deadline: float,
        step: ClaimStep[Taken],
        run: Callable[[Taken], Awaitable[Verdict]],
    ) -> Verdict:
        """Claim a row and run it for at most `deadline` active seconds; nothing to do where somebody else has it.

        A row that has lost several consumers runs alone here.
        """
        async with self.quarantine.beside():
            taken = await self.claim(step, alone=False)
            if taken is not None:
                return await self._run(taken, deadline, run)
        if not await self._is_suspect(delivery.message):
            return Ack()
        async with self.quarantine.alone():
            log.warning("this has stopped several workers, it runs alone", action="quarantined")
            taken = await self.claim(step, alone=True)
            return Ack() if taken is None else await self._run(taken, deadline, run)

    async def _run(self, taken: Taken, deadline: float, run: Callable[[Taken], Awaitable[Verdict]]) -> Verdict:
        with self.leases.held(claim_of(taken), deadline):
            return await run(taken)

    async def claim(self, step: ClaimStep[Taken], *, alone: bool) -> Taken | None:
        """Claim once, though the transaction may run more than once where the answer of its COMMIT is lost."""
        request = ClaimRequest(self.worker_id, self.leases.seconds, alone)
        return await self.transaction(lambda session, _: step(session, request))

    async def _is_suspect(self, message: Message) -> bool:
        async def ask() -> bool:
            async with self.parts.database.read() as session:
                return await claims.is_suspect(session, message.job_id, message.chunk_index)

        return await self.outage_retry.run(ask)

    def retry_delay(self, failures_so_far: int) -> float:
        """Seconds before the next attempt; the last configured delay where there are fewer."""
        delays = self.parts.settings.retry_delays
        return delays[min(failures_so_far, len(delays) - 1)] if delays else self.parts.settings.retry_delay_seconds

    async def settled(self, claim: Claim, message: Message, run: Callable[[], Awaitable[None]]) -> Verdict:
        """Do the claimed work and turn however it ends into a verdict.

        Cancelled (shutdown): the row is handed back and the broker redelivers.
        """
        try:
            if claim.lost > MAX_LOST:
                raise WhisperCrashError("The recording repeatedly crashed the worker that processed it.")
            await self.leases.timed(claim, run)
        except asyncio.CancelledError:
            await asyncio.shield(self._hand_back_quickly(claim))
            raise
        except Exception as error:  # noqa: BLE001
            return await self._settle(claim, message, self.classify(error))
        self.health.success()
        self.delays.forget(claim)
        return Ack()

    def classify(self, error: Exception) -> SttError:
        """Tell apart the recording's fault, an outage, and a fault of this machine; the last is counted here."""
        if isinstance(error, SttError) and error.kind not in (Kind.INFRASTRUCTURE, Kind.MACHINE):
            return error
        fault = self.machine_fault(error)
        if fault is None and isinstance(error, InfrastructureError):
            return error
        self.health.fault(fault or error)
        if fault is None:
            log.error("unforeseen error", action="internal_error", exc_info=error)
        return fault or InternalError()

    def machine_fault(self, error: Exception) -> MachineError | None:
        """The fault of this machine behind an error, such as a database that cannot be reached for lack of sockets."""
        return machine_fault(error, (self.workspace.root.parent,))

    async def _settle(self, claim: Claim, message: Message, error: SttError) -> Verdict:
        log.warning("run failed", action="run_failed", code=error.code, kind=error.kind, reason=str(error))
        if error.kind in (Kind.INFRASTRUCTURE, Kind.MACHINE):
            await self._leave_for_later(claim, self.delays.next(claim))
            return Ack()
        limit = error.max_retries if error.max_retries is not None else self.parts.settings.max_retries
        if error.kind is Kind.WORK and claim.failures < limit and claim.lost <= MAX_LOST:
            return await self._again(claim, message, error)
        await self._give_up(claim, error)
        return Ack()

    async def _again(self, claim: Claim, message: Message, error: SttError) -> Verdict:
        delay = self.retry_delay(claim.failures)
        # the jitter spreads what the scheduler would publish at once; the broker's delays are fixed
        spread = delay * random.uniform(1.0, 1.5) if self.parts.settings.retry_jitter else delay
        count = await self.transaction(lambda session, _: failures.retry_later(session, claim, error, spread))
        return Ack() if count is None else Retry(delay, replace(message, failures=count))

    async def _give_up(self, claim: Claim, error: SttError) -> None:
        ttl = self.parts.settings.failure_ttl_seconds
        token = dead_letters.new_token()
        failed = await self.transaction(
            lambda session, _: failures.fail_job(session, claim.job_id, error, token, claim=claim, ttl=ttl)
        )
        if failed:
            log.error("job failed", action="job_failed", code=error.code)
            await self.parts.services.dead_letters.publish(claim.job_id)

    async def _leave_for_later(self, claim: Claim, delay: float) -> None:
        """Waits for a database that is away: a row that is not handed back counts as lost with its holder."""
        with contextlib.suppress(InfrastructureError):
            await OutageRetry().run(lambda: self._hand_back(claim, delay))

    async def _hand_back_quickly(self, claim: Claim) -> None:
        """At shutdown. Where the database is away the claim simply expires."""
        with contextlib.suppress(InfrastructureError, TimeoutError):
            async with asyncio.timeout(HAND_BACK_SECONDS):
                await self._hand_back(claim, RELEASE_DELAY)

    async def _hand_back(self, claim: Claim, delay: float) -> None:
        async with self.parts.database.write() as session:
            await failures.hand_back(session, claim, delay)


@contextlib.asynccontextmanager
async def bound(delivery: Delivery) -> AsyncIterator[None]:
    """Every log line inside carries `job_id` and `chunk_index`."""
    message = delivery.message
    extra = {} if message.chunk_index is None else {"chunk_index": message.chunk_index}
    with structlog.contextvars.bound_contextvars(job_id=message.job_id, **extra):
        yield
