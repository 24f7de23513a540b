"""Prepare: download the recording, decode it to 16 kHz mono, plan the chunks, store the working audio and the plan."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.config import Settings
from core.domain import keys
from core.domain.job import AUTO
from core.domain.job_options import MergeMethod
from core.domain.spans import BYTES_PER_SAMPLE
from core.messaging.port import Delivery, MessageType, Retry, Verdict
from core.storage.port import Storage
from internal.consumer.model_selector import ModelSelector
from internal.consumer.recordings import Recordings
from internal.consumer.retrying_database import RetryingDatabase
from internal.consumer.step_runner import StepRunner
from internal.consumer.workspace import Workspace
from internal.outage_retry import OutageRetry
from internal.services import publishing
from internal.services.publishing import Publisher
from repositories import admission, jobs, plans
from repositories.claims import Claim, ClaimRequest
from repositories.models import Job
from repositories.plans import Plan
from worker.checksums import chunk_checksums
from worker.chunking import ChunkLimits
from worker.preparer import Prepared, prepare

log = structlog.get_logger(__name__)
DEADLINE = 1500.0
"""Working seconds: 25 min."""


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """Settings of Prepare.

    concurrency: recordings that one consumer decodes at once; max_prepared: seconds of audio that one owner may have
    decoded and not yet transcribed; silence_threshold: dBFS; min_silence and max_duration: seconds.
    """

    concurrency: int
    max_prepared: float
    chunk_limits: ChunkLimits
    chunk_strategy: str
    merge_method: MergeMethod
    silence_threshold: float
    min_silence: float
    max_duration: float

    @classmethod
    def from_settings(cls, settings: Settings) -> PrepareSettings:
        return cls(
            concurrency=settings.prepare_concurrency,
            max_prepared=settings.max_prepared_seconds,
            chunk_limits=ChunkLimits.from_settings(settings),
            chunk_strategy=settings.chunk_strategy,
            merge_method=settings.merge_method,
            silence_threshold=settings.silence_threshold,
            min_silence=settings.min_silence_duration_seconds,
            max_duration=settings.max_audio_duration_seconds,
        )


@dataclass(slots=True)
class PrepareHandler:
    """Handler of Prepare messages. Decoding runs beside the engine pool, in slots of its own."""

    steps: StepRunner
    database: RetryingDatabase
    recordings: Recordings
    models: ModelSelector
    workspace: Workspace
    storage: Storage
    outage_retry: OutageRetry
    publisher: Publisher
    settings: PrepareSettings
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.settings.concurrency)

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message

        async def claim(session: AsyncSession, request: ClaimRequest) -> tuple[Claim, Job] | None:
            limit = self.settings.max_prepared
            return await admission.claim_prepare(session, message.job_id, message.failures, request, limit)

        async with self._slots:
            verdict, claimed = await self.steps.run(delivery, DEADLINE, claim, self._prepare)
            if claimed is None and await self.database.read(lambda session: jobs.is_unfetched(session, message.job_id)):
                # sent by an earlier version, which fetched recordings in this step
                return Retry(self.steps.retries.delay(0), replace(message, type=MessageType.FETCH))
            return verdict

    async def _prepare(self, claimed: tuple[Claim, Job]) -> None:
        claim, job = claimed
        model = await self.models.select(job)
        if model is None:
            await self.models.hand_back(claim, job)
            return
        key = keys.working_key(job.job_id, claim.number)
        with self.workspace.folder(f"{claim.job_id}-{claim.number}") as folder:
            started = time.monotonic()
            source, pcm = folder / "source", folder / "working.pcm"
            await self.recordings.download(job, source)
            download_seconds = time.monotonic() - started + (job.download_seconds or 0.0)
            prepared = await self._decode(source, pcm)
            source.unlink()
            checksums = await asyncio.to_thread(chunk_checksums, pcm, prepared.samples, prepared.chunks)
            if prepared.chunks:
                await self.outage_retry.run(partial(self.storage.put_file, key, pcm))
        plan = Plan(
            number=claim.number,
            key=key,
            duration=prepared.duration,
            chunks=tuple(prepared.chunks),
            model=model.name,
            # pinned in the plan, so that every Finalise writes the same bytes
            options=replace(
                job.options,
                file_sha256=model.sha256,
                chunk_strategy=self.settings.chunk_strategy,
                merge_method=self.settings.merge_method,
            ),
            download_seconds=download_seconds,
            decode_seconds=prepared.decode_seconds,
            first_release=1 if job.language == AUTO else plans.FIRST_RELEASE,
            working_bytes=prepared.samples * BYTES_PER_SAMPLE,
            checksums=checksums,
        )
        await self._store_plan(job, plan)

    async def _decode(self, source: Path, pcm: Path) -> Prepared:
        prepared = await prepare(
            source,
            pcm,
            self.settings.chunk_limits,
            strategy=self.settings.chunk_strategy,
            threshold_dbfs=self.settings.silence_threshold,
            min_silence=self.settings.min_silence,
            max_duration=self.settings.max_duration,
        )
        log.info(
            "recording prepared",
            action="prepared",
            audio_seconds=round(prepared.duration, 2),
            chunks=len(prepared.chunks),
            decode_seconds=round(prepared.decode_seconds, 3),
        )
        return prepared

    async def _store_plan(self, job: Job, plan: Plan) -> None:
        wake_ups = await self.database.write(lambda session: plans.store_plan(session, job.job_id, plan))
        if wake_ups is None:
            await self._discard_plan(job, plan)
            return
        job.chunks_total, job.model = len(plan.chunks), plan.model
        await self.publisher.publish([publishing.message_for(job, row) for row in wake_ups])

    async def _discard_plan(self, job: Job, plan: Plan) -> None:
        """Delete the working audio of a plan that was not stored, unless an earlier attempt had stored the plan.

        If storage is down, the intent of the working audio remains and the scheduler removes the object later.
        """
        current = await self.database.read(lambda session: jobs.get(session, job.job_id))
        if current is not None and current.working_audio_path == plan.key:
            log.info("plan was already stored", action="plan_stored_before", plan=plan.number)
            return
        log.info("another plan was stored first", action="plan_lost", plan=plan.number)
        await self.storage.delete(plan.key)
