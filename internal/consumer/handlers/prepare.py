"""Prepare: download, decode to 16 kHz mono, find the silences, plan the chunks, store working audio and plan."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import structlog

from core.domain import keys
from core.domain.job import AUTO
from core.domain.job_options import JobOptions
from core.domain.spans import BYTES_PER_SAMPLE
from core.messaging.port import Delivery, MessageType, Retry, Verdict
from internal.consumer import model_choice
from internal.consumer.context import Context
from internal.consumer.model_choice import ModelFile
from internal.consumer.source import obtain
from internal.services import publishing
from repositories import admission, jobs, plans
from repositories.claims import Claim
from repositories.models import Job
from repositories.plans import Plan
from worker.checksums import chunk_checksums
from worker.chunking import ChunkLimits
from worker.preparer import Prepared, prepare

log = structlog.get_logger(__name__)
DEADLINE = 1500.0
"""Seconds one Prepare may take: 25 min."""


@dataclass(slots=True)
class PrepareHandler:
    """At most PREPARE_CONCURRENCY decode at once, beside the transcribing pool."""

    context: Context
    _slots: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.context.parts.settings.prepare_concurrency)

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message
        async with self._slots:
            ran = False

            async def run(taken: tuple[Claim, Job]) -> Verdict:
                nonlocal ran
                ran = True
                claim, job = taken
                return await self.context.settled(claim, message, lambda: self._run(claim, job))

            most = self.context.parts.settings.max_prepared_seconds
            verdict = await self.context.take(
                delivery,
                DEADLINE,
                lambda session, request: admission.claim_prepare(
                    session, message.job_id, message.failures, request, most
                ),
                run,
            )
            if not ran and await self._is_unfetched(message.job_id):
                # a message of an earlier version, which fetched here
                return Retry(self.context.retry_delay(0), replace(message, type=MessageType.FETCH))
            return verdict

    async def _is_unfetched(self, job_id: str) -> bool:
        async def ask() -> bool:
            async with self.context.parts.database.read() as session:
                return await jobs.is_unfetched(session, job_id)

        return await self.context.outage_retry.run(ask)

    async def _run(self, claim: Claim, job: Job) -> None:
        model = await model_choice.for_plan(self.context, job)
        if model is None:
            await model_choice.hand_back(self.context, claim, job)
            return
        with self.context.workspace.folder(f"{claim.job_id}-{claim.number}") as folder:
            started = time.monotonic()
            source = folder / "source"
            await obtain(self.context, job, source)
            downloaded = time.monotonic() - started
            pcm = folder / "working.pcm"
            prepared = await self._decode(source, pcm)
            source.unlink()
            checksums = await asyncio.to_thread(chunk_checksums, pcm, prepared.samples, prepared.chunks)
            key = keys.working_key(job.job_id, claim.number)
            storage = self.context.parts.storage
            if prepared.chunks:
                await self.context.outage_retry.run(partial(storage.put_file, key, pcm))
        downloaded += job.download_seconds or 0.0
        plan = self._plan(claim, job, prepared, key, model, downloaded)
        await self._store(job, replace(plan, checksums=checksums))

    async def _decode(self, source: Path, pcm: Path) -> Prepared:
        settings = self.context.parts.settings
        prepared = await prepare(
            source,
            pcm,
            ChunkLimits.from_settings(settings),
            strategy=settings.chunk_strategy,
            threshold_dbfs=settings.silence_threshold,
            min_silence=settings.min_silence_duration_seconds,
            max_duration=settings.max_audio_duration_seconds,
        )
        log.info(
            "recording prepared",
            action="prepared",
            audio_seconds=round(prepared.duration, 2),
            chunks=len(prepared.chunks),
            decode_seconds=round(prepared.decode_seconds, 3),
        )
        return prepared

    def _plan(self, claim: Claim, job: Job, prepared: Prepared, key: str, model: ModelFile, downloaded: float) -> Plan:
        return Plan(
            number=claim.number,
            key=key,
            duration=prepared.duration,
            chunks=tuple(prepared.chunks),
            model=model.name,
            options=self._options(job, model),
            download_seconds=downloaded,
            decode_seconds=prepared.decode_seconds,
            first_release=1 if job.language == AUTO else plans.FIRST_RELEASE,
            working_bytes=prepared.samples * BYTES_PER_SAMPLE,
        )

    def _options(self, job: Job, model: ModelFile) -> JobOptions:
        """Pin what the result file says of the engine, so that a second Finalise writes the same bytes."""
        settings = self.context.parts.settings
        return replace(
            job.options,
            file_sha256=model.sha256,
            chunk_strategy=settings.chunk_strategy,
            merge_method=settings.merge_method,
        )

    async def _store(self, job: Job, plan: Plan) -> None:
        wake_ups = await self.context.transaction(lambda session, _: plans.store_plan(session, job.job_id, plan))
        if wake_ups is None:
            await self._lost(job, plan)
            return
        job.chunks_total, job.model = len(plan.chunks), plan.model
        await self.context.parts.publisher.publish([publishing.message_for(job, row) for row in wake_ups])

    async def _lost(self, job: Job, plan: Plan) -> None:
        """Another plan was first, or this very one was, in a COMMIT whose answer never came: then its audio stays.

        The intent stays too: where storage is away right now, the scheduler removes the object later.
        """
        async with self.context.parts.database.read() as session:
            found = await jobs.get(session, job.job_id)
        if found is not None and found.working_audio_path == plan.key:
            log.info("the plan was stored before", action="plan_stored_before", plan=plan.number)
            return
        log.info("another plan was first", action="plan_lost", plan=plan.number)
        await self.context.parts.storage.delete(plan.key)
