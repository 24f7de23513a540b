"""Selection of a job's model file: once, by Prepare; every chunk uses the same file."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.domain.models import file_name
from core.errors import ModelMissingError
from internal.consumer.retrying_database import RetryingDatabase
from repositories import failures, model_wait
from repositories.claims import Claim
from repositories.models import Job
from worker.models import ModelCatalogue

log = structlog.get_logger(__name__)
FIRST_DELAY, DELAY_GROWTH = 2.0, 1.5
MAX_DELAY = 30.0
"""Maximum seconds before a row is published again if no live consumer has its model."""
MAX_DELAY_ELSEWHERE = 10.0
"""The same if another live consumer has the model, which should get the row soon."""


@dataclass(frozen=True, slots=True)
class PinnedModel:
    """The model of a plan: its name and the SHA-256 (hex) of its file."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelSelector:
    """Selection of model files on this machine.

    wait_seconds: time after which a missing model fails the job. pending: returns the models that are being installed,
    for which jobs wait rather than run with another one.
    """

    catalogue: ModelCatalogue
    database: RetryingDatabase
    default_model: str | None
    wait_seconds: float
    pending: Callable[[], Sequence[str]] = tuple

    async def select(self, job: Job) -> PinnedModel | None:
        """Return the model for a new plan; None if this machine has no suitable one. May hash the whole file."""

        def select() -> PinnedModel | None:
            here = self.catalogue.names()
            name = model_wait.choose_for(job, here, self.default_model, self.pending())
            try:
                return None if name is None or name not in here else PinnedModel(name, self.catalogue.sha256(name))
            except (ModelMissingError, FileNotFoundError):  # removed meanwhile
                return None

        return await asyncio.to_thread(select)

    async def find_pinned(self, job: Job) -> Path | None:
        """Return the model file that the job's plan pins; None if it is missing here or was replaced."""
        if job.model is None:
            return None
        return await asyncio.to_thread(self.catalogue.find, job.model, job.options.file_sha256 or None)

    async def hand_back(self, claim: Claim, job: Job) -> None:
        """Hand the claimed row back for a consumer that has the model.

        Raises ModelMissingError once no live consumer has had it for MODEL_WAIT_SECONDS.
        """

        async def hand_back(session: AsyncSession) -> float | None:
            seconds_missing = await model_wait.seconds_missing(session, job, self.default_model)
            longest = MAX_DELAY_ELSEWHERE if seconds_missing is None else MAX_DELAY
            if seconds_missing is None or seconds_missing < self.wait_seconds:
                await failures.hand_back(session, claim, hand_back_delay(claim.number, longest))
            return seconds_missing

        seconds_missing = await self.database.write(hand_back)
        log.warning("model file missing", action="model_missing", model=job.model, seconds_nowhere=seconds_missing)
        if seconds_missing is None or seconds_missing < self.wait_seconds:
            return
        raise ModelMissingError(
            "No worker has {name}. Restore it and retry the job, or resubmit it with a model listed by GET /health.",
            name=file_name(job.model) if job.model else "a model file",
        )


def hand_back_delay(claims: int, longest: float) -> float:
    """Return the seconds before a row claimed `claims` times is published again, at most `longest`, with jitter."""
    return min(FIRST_DELAY * DELAY_GROWTH ** min(claims, 20), longest) * random.uniform(0.8, 1.2)
