"""Runner of one step: claims the row, runs the work, and settles a failed run by retry, failed job or hand-back."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core import tracing
from core.config import Settings
from core.consumer_metrics import STEP_ERRORS, STEP_RUNS, STEP_SECONDS
from core.errors import InfrastructureError, Kind, SttError, WhisperCrashError
from core.messaging.port import Ack, Delivery, Message, Retry, Verdict
from core.metrics import JOBS_ENDED, label
from internal.consumer.leases import Leases
from internal.consumer.machine_health import HandBackDelays, MachineHealth
from internal.consumer.quarantine import Quarantine
from internal.consumer.retrying_database import RetryingDatabase
from internal.outage_retry import OutageRetry
from internal.services import dead_letters
from internal.services.dead_letters import DeadLetters
from repositories import claims, failures
from repositories.claims import MAX_LOST, Claim, ClaimedChunk, ClaimRequest
from repositories.models import Job
from repositories.transitions import RELEASE_DELAY

log = structlog.get_logger(__name__)
SHUTDOWN_HAND_BACK_TIMEOUT = 5.0
"""Seconds that handing back one row may take at shutdown."""
Claimed = TypeVar("Claimed", ClaimedChunk, tuple[Claim, Job])
ClaimStep = Callable[[AsyncSession, ClaimRequest], Awaitable[Claimed | None]]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Policy for retries of failed runs.

    delays: seconds before each retry, of which the last is repeated; default_delay: seconds if `delays` is empty;
    failure_ttl: seconds until a failed job expires.
    """

    max_retries: int
    delays: tuple[float, ...]
    default_delay: float
    jitter: bool
    failure_ttl: int

    @classmethod
    def from_settings(cls, settings: Settings) -> RetryPolicy:
        return cls(
            max_retries=settings.max_retries,
            delays=settings.retry_delays,
            default_delay=settings.retry_delay_seconds,
            jitter=settings.retry_jitter,
            failure_ttl=settings.failure_ttl_seconds,
        )

    def delay(self, failures: int) -> float:
        """Return the seconds before the next attempt after `failures` earlier failures."""
        return self.delays[min(failures, len(self.delays) - 1)] if self.delays else self.default_delay

    @property
    def max_delay(self) -> float:
        return self.delays[-1] if self.delays else self.default_delay


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Runs the steps of one consumer: claim a row, do its work within a deadline, settle the outcome."""

    worker_id: str
    database: RetryingDatabase
    leases: Leases
    health: MachineHealth
    dead_letters: DeadLetters
    retries: RetryPolicy
    quarantine: Quarantine = field(default_factory=Quarantine)
    hand_back_delays: HandBackDelays = field(default_factory=HandBackDelays)

    async def run(
        self,
        delivery: Delivery,
        deadline: float,
        claim_step: ClaimStep[Claimed],
        work: Callable[[Claimed], Awaitable[None]],
    ) -> tuple[Verdict, Claimed | None]:
        """Claim a row and do its work within `deadline` working seconds.

        Return the verdict on the message, and the claimed row, or None if there was nothing to claim. A row that has
        lost several consumers runs alone.
        """
        message = delivery.message
        async with self.quarantine.shared():
            claimed = await self._claim(claim_step, alone=False)
            if claimed is not None:
                return await self._run(message, deadline, claimed, work), claimed
        if not await self.database.read(
            lambda session: claims.is_suspect(session, message.job_id, message.chunk_index)
        ):
            return Ack(), None
        async with self.quarantine.exclusive():
            log.warning("row has lost several consumers, running it alone", action="quarantined")
            claimed = await self._claim(claim_step, alone=True)
            verdict = Ack() if claimed is None else await self._run(message, deadline, claimed, work)
            return verdict, claimed

    async def _claim(self, claim_step: ClaimStep[Claimed], *, alone: bool) -> Claimed | None:
        # all attempts share one request: after a lost COMMIT response, the claim has to find its own row again
        request = ClaimRequest(self.worker_id, self.leases.seconds, alone)
        return await self.database.write(lambda session: claim_step(session, request))

    async def _run(
        self, message: Message, deadline: float, claimed: Claimed, work: Callable[[Claimed], Awaitable[None]]
    ) -> Verdict:
        claim, job = (claimed.claim, claimed.job) if isinstance(claimed, ClaimedChunk) else claimed
        with self.leases.hold(claim, deadline), STEP_SECONDS.labels(message.type.value).time():
            return await self.run_claimed(claim, message, lambda: work(claimed), job)

    async def run_claimed(
        self, claim: Claim, message: Message, work: Callable[[], Awaitable[None]], job: Job | None = None
    ) -> Verdict:
        """Do the work of a claim and return the verdict on its message. On cancellation, hand the row back.

        job: that of the claim, for the metrics.
        """
        try:
            if claim.lost > MAX_LOST:
                raise WhisperCrashError("The recording repeatedly crashed the worker that processed it.")
            await self.leases.run(claim, work)
        except asyncio.CancelledError:
            STEP_RUNS.labels(message.type.value, "interrupted").inc()
            await asyncio.shield(self._hand_back_at_shutdown(claim))
            raise
        except Exception as error:  # noqa: BLE001
            return await self._handle_failure(claim, message, self.health.classify(error), job)
        STEP_RUNS.labels(message.type.value, "ok").inc()
        self.health.record_success()
        self.hand_back_delays.reset(claim)
        return Ack()

    async def _handle_failure(self, claim: Claim, message: Message, error: SttError, job: Job | None) -> Verdict:
        log.warning("run failed", action="run_failed", code=error.code, kind=error.kind, reason=str(error))
        tracing.record_error(error.code)
        STEP_ERRORS.labels(message.type.value, error.code).inc()
        if error.kind in (Kind.INFRASTRUCTURE, Kind.MACHINE):
            STEP_RUNS.labels(message.type.value, "handed_back").inc()
            delay = self.hand_back_delays.next(claim)
            # waits for the database without holding back new work: a row that is not handed back counts as lost
            with contextlib.suppress(InfrastructureError):
                await OutageRetry().run(lambda: self._hand_back(claim, delay))
            return Ack()
        limit = error.max_retries if error.max_retries is not None else self.retries.max_retries
        if error.kind is Kind.WORK and claim.failures < limit and claim.lost <= MAX_LOST:
            STEP_RUNS.labels(message.type.value, "retried").inc()
            return await self._schedule_retry(claim, message, error)
        STEP_RUNS.labels(message.type.value, "failed").inc()
        await self._fail_job(claim, error, job)
        return Ack()

    async def _schedule_retry(self, claim: Claim, message: Message, error: SttError) -> Verdict:
        delay = self.retries.delay(claim.failures)
        # jitter spreads the rows that the scheduler would publish at the same time; the broker's delays are fixed
        row_delay = delay * random.uniform(1.0, 1.5) if self.retries.jitter else delay
        new_failures = await self.database.write(lambda session: failures.retry_later(session, claim, error, row_delay))
        return Ack() if new_failures is None else Retry(delay, replace(message, failures=new_failures))

    async def _fail_job(self, claim: Claim, error: SttError, job: Job | None) -> None:
        token, ttl = dead_letters.new_token(), self.retries.failure_ttl
        failed = await self.database.write(
            lambda session: failures.fail_job(session, claim.job_id, error, token, claim=claim, ttl=ttl)
        )
        if failed:
            model, language = (job.model, job.language) if job else (None, None)
            JOBS_ENDED.labels("FAILED", error.code, label(model), label(language)).inc()
            log.error("job failed", action="job_failed", code=error.code, reason=str(error))
            if job is not None:
                tracing.record_job(job.job_id, job.created_at, "FAILED")
            await self.dead_letters.publish(claim.job_id)

    async def _hand_back_at_shutdown(self, claim: Claim) -> None:
        # if the database is down, the lease lapses instead
        with contextlib.suppress(InfrastructureError, TimeoutError):
            async with asyncio.timeout(SHUTDOWN_HAND_BACK_TIMEOUT):
                await self._hand_back(claim, RELEASE_DELAY)

    async def _hand_back(self, claim: Claim, delay: float) -> None:
        async with self.database.database.write() as session:
            await failures.hand_back(session, claim, delay)
