"""Fetch: copy a recording from its URL into storage once, then release its Prepare."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from core.messaging.port import Delivery, Verdict
from internal.consumer.recordings import Recordings
from internal.consumer.retrying_database import RetryingDatabase
from internal.consumer.step_runner import StepRunner
from internal.consumer.workspace import Workspace
from internal.services.publishing import Publisher
from repositories import admission, claims, jobs
from repositories.claims import Claim, ClaimRequest
from repositories.models import Job

DEADLINE = 1700.0
"""Working seconds: a fetch takes at most 1000, waiting for storage another 600."""


@dataclass(frozen=True, slots=True)
class FetchHandler:
    """Handler of Fetch messages. Many run at once, because they mostly wait for the network.

    max_per_owner: concurrent fetches of one owner, across all consumers.
    """

    steps: StepRunner
    database: RetryingDatabase
    recordings: Recordings
    workspace: Workspace
    publisher: Publisher
    max_per_owner: int

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message

        async def claim(session: AsyncSession, request: ClaimRequest) -> tuple[Claim, Job] | None:
            return await admission.claim_fetch(session, message.job_id, message.failures, request, self.max_per_owner)

        verdict, claimed = await self.steps.run(delivery, DEADLINE, claim, self._fetch)
        if claimed is not None:
            owner = claimed[1].owner
            wake_ups = await self.database.write(
                lambda session: admission.admit_next(session, owner, claims.unfetched(), 1)
            )
            await self.publisher.publish_rows(wake_ups)
        return verdict

    async def _fetch(self, claimed: tuple[Claim, Job]) -> None:
        _, job = claimed
        started = time.monotonic()
        with self.workspace.folder(f"{job.job_id}-{job.claim}") as folder:
            key, size = await self.recordings.fetch(job, folder / "source")
        seconds = time.monotonic() - started
        wake_up = await self.database.write(lambda session: jobs.store_source(session, job.job_id, key, size, seconds))
        if wake_up is not None:
            await self.publisher.publish_rows([wake_up])
