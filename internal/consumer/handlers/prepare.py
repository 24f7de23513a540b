"""Prepare: download the recording, decode it to 16 kHz mono, plan the chunks, store the working audio and the plan.

The chunks of a long recording are released in instalments while the rest of it is decoded.
"""

from __future__ import annotations

import asyncio
import math
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
from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE
from core.messaging.port import Delivery, MessageType, Retry, Verdict
from core.storage.port import Storage
from internal.consumer.model_selector import ModelSelector, PinnedModel
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
from worker.preparer import Part, Prepared, Released, prepare

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


class PlanLostError(Exception):
    """The job has ended, or another run has it: this one stops without an effect."""


@dataclass(slots=True)
class PrepareRun:
    """A run of Prepare. plan: of the next part, without its chunks; parts: instalments released by this run."""

    claim: Claim
    job: Job
    plan: Plan
    parts: int = 0


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
        model = await self._select_model(job)
        if model is None:
            await self.models.hand_back(claim, job)
            return
        released = await self._find_released(job)
        with self.workspace.folder(f"{claim.job_id}-{claim.number}") as folder:
            started = time.monotonic()
            source, pcm = folder / "source", folder / "working.pcm"
            await self.recordings.download(job, source)
            run = PrepareRun(claim, job, self._empty_plan(claim, job, model, released))
            run.plan = replace(run.plan, download_seconds=time.monotonic() - started + (job.download_seconds or 0.0))
            try:
                prepared = await self._decode(source, pcm, run, released)
            except PlanLostError:
                return
            source.unlink()
            plan = await self._store_audio(run.plan, prepared.rest)
            await self._store_peaks(job, prepared)
        await self._store_plan(job, replace(plan, duration=prepared.duration, decode_seconds=prepared.decode_seconds))

    async def _select_model(self, job: Job) -> PinnedModel | None:
        """Return the model of the plan; that of an open plan, whose chunks wait for it, is needed by no Prepare."""
        if job.plan is not None and job.model is not None:
            return PinnedModel(job.model, job.options.file_sha256)
        return await self.models.select(job)

    async def _find_released(self, job: Job) -> Released:
        if job.plan is None:
            return Released()
        chunks, end = await self.database.read(lambda session: plans.find_released(session, job.job_id))
        log.info("continuing an open plan", action="plan_continued", chunks=chunks, from_seconds=end / SAMPLE_RATE)
        return Released(chunks, end)

    def _empty_plan(self, claim: Claim, job: Job, model: PinnedModel, released: Released) -> Plan:
        """Return the plan without chunks. All of it is pinned, so that every Finalise writes the same bytes."""
        options = replace(
            job.options,
            file_sha256=model.sha256,
            chunk_strategy=self.settings.chunk_strategy,
            merge_method=self.settings.merge_method,
        )
        return Plan(
            number=claim.number if job.plan is None else job.plan,
            key=keys.working_key(job.job_id, claim.number),
            duration=0.0,
            chunks=(),
            model=model.name,
            options=options if job.plan is None else job.options,
            download_seconds=0.0,
            decode_seconds=0.0,
            first_release=1 if job.language == AUTO else plans.FIRST_RELEASE,
            claim=None if job.plan is None else claim,
            first_index=released.chunks,
        )

    async def _decode(self, source: Path, pcm: Path, run: PrepareRun, released: Released) -> Prepared:
        prepared = await prepare(
            source,
            pcm,
            self.settings.chunk_limits,
            strategy=self.settings.chunk_strategy,
            threshold_dbfs=self.settings.silence_threshold,
            min_silence=self.settings.min_silence,
            max_duration=self.settings.max_duration,
            released=released,
            release=lambda part, stated: self._release(run, part, stated),
        )
        log.info(
            "recording prepared",
            action="prepared",
            audio_seconds=round(prepared.duration, 2),
            chunks=run.plan.first_index + len(prepared.chunks),
            instalments=run.parts,
            decode_seconds=round(prepared.decode_seconds, 3),
        )
        return prepared

    async def _release(self, run: PrepareRun, part: Part, stated: float | None) -> None:
        """Store an instalment and publish its chunks. Raises PlanLostError if another run has the job, or it ended."""
        plan = await self._store_audio(run.plan, part)
        decoded = (part.first + part.samples) / SAMPLE_RATE
        plan = replace(plan, duration=decoded if stated is None else max(stated, decoded))
        run.parts += 1
        next_key = keys.working_key(run.job.job_id, run.claim.number, run.parts)
        await self._store_instalment(run, plan, self._expected_chunks(plan, stated), next_key)
        run.plan = replace(run.plan, key=next_key, first_index=plan.total, claim=run.claim)

    def _expected_chunks(self, plan: Plan, stated: float | None) -> int:
        """Return an upper bound of the recording's chunks: of two adjacent ones, one is at least half full."""
        limits = self.settings.chunk_limits
        if stated is None:
            return limits.max_chunks
        rest = max(stated - plan.chunks[-1].end_time, 0.0) * SAMPLE_RATE
        return min(plan.total + math.ceil(2 * rest / limits.longest) + 1, limits.max_chunks)

    async def _store_audio(self, plan: Plan, part: Part) -> Plan:
        """Store the working audio of a part; return the plan with its chunks."""
        checksums = await asyncio.to_thread(chunk_checksums, part.pcm, part.samples, part.chunks, part.first)
        if part.chunks:
            await self.outage_retry.run(partial(self.storage.put_file, plan.key, part.pcm))
        return replace(
            plan,
            chunks=tuple(part.chunks),
            checksums=checksums,
            working_bytes=part.samples * BYTES_PER_SAMPLE,
            audio_start=part.first,
        )

    async def _store_peaks(self, job: Job, prepared: Prepared) -> None:
        key, data = keys.peaks_key(job.job_id), prepared.peaks.to_bytes()
        await self.outage_retry.run(partial(self.storage.put_bytes, key, data, "application/json"))

    async def _store_instalment(self, run: PrepareRun, plan: Plan, expected: int, next_key: str) -> None:
        job = run.job
        wake_ups = await self.database.write(
            lambda session: plans.store_instalment(session, run.claim, plan, expected=expected, next_key=next_key)
        )
        if wake_ups is None and not await self._discard_plan(job, plan):
            raise PlanLostError
        log.info(
            "instalment released",
            action="instalment_released",
            chunks=len(plan.chunks),
            until=round(plan.chunks[-1].end_time, 2),
            expected=expected,
        )
        job.plan, job.model = plan.number, plan.model
        await self.publisher.publish([publishing.message_for(job, row) for row in wake_ups or ()])

    async def _store_plan(self, job: Job, plan: Plan) -> None:
        wake_ups = await self.database.write(lambda session: plans.store_plan(session, job.job_id, plan))
        if wake_ups is None:
            await self._discard_plan(job, plan)
            return
        job.chunks_total, job.model = plan.total, plan.model
        await self.publisher.publish([publishing.message_for(job, row) for row in wake_ups])

    async def _discard_plan(self, job: Job, plan: Plan) -> bool:
        """Delete the working audio of a plan that was not stored; return True if an earlier attempt had stored it.

        If storage is down, the intent of the working audio remains and the scheduler removes the object later.
        """
        if await self.database.read(lambda session: plans.uses_audio(session, job.job_id, plan.key)):
            log.info("plan was already stored", action="plan_stored_before", plan=plan.number)
            return True
        log.info("another plan was stored first", action="plan_lost", plan=plan.number)
        await self.storage.delete(plan.key)
        return False
