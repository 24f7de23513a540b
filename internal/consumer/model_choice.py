"""The model file of a job: chosen once, by Prepare; the very file for every chunk; waited for where it is missing."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.domain.models import file_name
from core.errors import ModelMissingError
from internal.consumer.context import Context
from repositories import failures, model_wait
from repositories.claims import Claim
from repositories.models import Job

log = structlog.get_logger(__name__)
FIRST_DELAY, GROWTH = 2.0, 1.5
LONGEST_DELAY = 30.0
"""Seconds until a row whose file no live consumer has is offered again."""
LONGEST_ELSEWHERE = 10.0
"""The same where another consumer has it: that one should meet the row soon."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """What a plan pins."""

    name: str
    sha256: str


async def for_plan(context: Context, job: Job) -> ModelFile | None:
    """The model file here that the job gets, or None. Its checksum may take a read of the whole file."""

    def look() -> ModelFile | None:
        name = model_wait.choose_for(job, context.catalogue.names(), context.parts.settings.default_model)
        try:
            return None if name is None else ModelFile(name, context.catalogue.sha256(name))
        except (ModelMissingError, FileNotFoundError):  # removed meanwhile
            return None

    return await asyncio.to_thread(look)


async def pinned(context: Context, job: Job) -> Path | None:
    """The job's very file, or None: missing here, or another one by the same name."""
    if job.model is None:
        return None
    return await asyncio.to_thread(context.catalogue.find, job.model, job.options.file_sha256 or None)


async def hand_back(context: Context, claim: Claim, job: Job) -> None:
    """Leave the claimed row to a consumer that has the file.

    Raises ModelMissingError once no live consumer has had it for MODEL_WAIT_SECONDS seconds.
    """
    settings = context.parts.settings

    async def work(session: AsyncSession, _: int) -> float | None:
        missing = await model_wait.seconds_missing(session, job, settings.default_model)
        longest = LONGEST_ELSEWHERE if missing is None else LONGEST_DELAY
        if missing is None or missing < settings.model_wait_seconds:
            await failures.hand_back(session, claim, delay(claim.number, longest))
        return missing

    missing = await context.transaction(work)
    log.warning("no such model file here", action="model_missing", model=job.model, seconds_nowhere=missing)
    if missing is not None and missing >= settings.model_wait_seconds:
        raise ModelMissingError(
            "No worker has {name}. Restore it and retry the job, or resubmit it with a model listed by GET /health.",
            name=file_name(job.model) if job.model else "a model file",
        )


def delay(claims: int, longest: float) -> float:
    """Seconds before the next offer of a row that has been claimed so often, with jitter."""
    return min(FIRST_DELAY * GROWTH ** min(claims, 20), longest) * random.uniform(0.8, 1.2)
