"""Fetch: get a recording from its sender's address into storage once, then release Prepare."""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.messaging.port import Delivery, Verdict
from internal.consumer.context import Context
from internal.consumer.source import fetch
from repositories import admission, claims, jobs
from repositories.claims import Claim, ClaimRequest
from repositories.models import Job

log = structlog.get_logger(__name__)
DEADLINE = 1700.0
"""Seconds: fetching takes at most 1000, an outage of storage meanwhile 600."""


@dataclass(slots=True)
class FetchHandler:
    """Waits for the network, so many run at once; FETCH_PER_OWNER bounds one owner's across all consumers."""

    context: Context

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message
        owners: list[str] = []

        async def run(taken: tuple[Claim, Job]) -> Verdict:
            claim, job = taken
            owners.append(job.owner)
            return await self.context.settled(claim, message, lambda: self._run(job))

        most = self.context.parts.settings.fetch_per_owner

        async def step(session: AsyncSession, request: ClaimRequest) -> tuple[Claim, Job] | None:
            return await admission.claim_fetch(session, message.job_id, message.failures, request, most)

        verdict = await self.context.take(delivery, DEADLINE, step, run)
        if owners:
            woken = await self.context.transaction(
                lambda session, _: admission.admit_next(session, owners[0], claims.unfetched(), 1)
            )
            await self.context.parts.publisher.publish_rows(woken)
        return verdict

    async def _run(self, job: Job) -> None:
        started = time.monotonic()
        with self.context.workspace.folder(f"{job.job_id}-{job.claim}") as folder:
            key, size = await fetch(self.context, job, folder / "source")
        seconds = time.monotonic() - started
        wake_up = await self.context.transaction(
            lambda session, _: jobs.store_source(session, job.job_id, key, size, seconds)
        )
        if wake_up is not None:
            await self.context.parts.publisher.publish_rows([wake_up])
