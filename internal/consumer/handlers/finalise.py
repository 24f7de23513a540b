"""Finalise: merge the chunks, write the result files, mark the job COMPLETED once, delete the working audio."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from core.domain import keys
from core.domain.job import AUTO
from core.domain.result import Result
from core.domain.transcript import ChunkTranscript
from core.errors import ObjectNotFound, StorageUnavailable
from core.messaging.port import Delivery, Verdict
from internal.consumer.context import Context
from repositories import admission, claims, commits, jobs
from repositories.claims import Claim
from repositories.commits import JobOutcome
from repositories.models import Job
from worker.engine import engine_version
from worker.exporters import formats
from worker.result import JobMetadata, build_result

log = structlog.get_logger(__name__)
DEADLINE = 600.0


@dataclass(slots=True)
class FinaliseHandler:
    context: Context

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message

        async def run(taken: tuple[Claim, Job]) -> Verdict:
            claim, job = taken
            return await self.context.settled(claim, message, lambda: self._run(claim, job))

        return await self.context.take(
            delivery,
            DEADLINE,
            lambda session, request: claims.claim_finalise(session, message.job_id, message.failures, request),
            run,
        )

    async def _run(self, claim: Claim, job: Job) -> None:
        chunks, ended = await self.context.outage_retry.run(partial(self._read, job))
        result = await asyncio.to_thread(build_result, facts(job, ended), chunks, job.options.merge_method)
        await self._write(job.job_id, result)
        done = JobOutcome(
            result_path=keys.result_key(job.job_id),
            text=result.text,
            confidence=result.confidence,
            processing_seconds=result.timings.total,
            result_ttl=self.context.parts.settings.result_ttl_seconds,
            metrics=_metrics(result),
        )
        completed = await self.context.transaction(lambda session, _: commits.complete_job(session, job.job_id, done))
        log.info("job finished", action="job_completed" if completed else "job_duplicate", **_metrics(result))
        if completed:
            woken = await self.context.transaction(
                lambda session, _: admission.admit_next(session, job.owner, claims.unprepared())
            )
            await self.context.parts.publisher.publish_rows(woken)
        if completed and job.working_audio_path:
            await self.context.parts.services.retention.remove_object(job.working_audio_path)

    async def _read(self, job: Job) -> tuple[list[ChunkTranscript], datetime]:
        async with self.context.parts.database.read() as session:
            chunks = await jobs.list_transcripts(session, job.job_id)
            ended = await jobs.last_committed_at(session, job.job_id)
        return chunks, ended or job.progressed_at or job.created_at

    async def _write(self, job_id: str, result: Result) -> None:
        for name in ("json", "txt"):
            kind = formats()[name]
            data = await asyncio.to_thread(kind.export, result)
            key = keys.result_key(job_id, name)
            await self.context.outage_retry.run(partial(self._store, key, data, kind.media_type))

    async def _store(self, key: str, data: bytes, media_type: str) -> None:
        """Write and read back: a job is not COMPLETED before its result can be read. Raises StorageUnavailable."""
        storage = self.context.parts.storage
        await storage.put_bytes(key, data, media_type)
        try:
            if await storage.get_bytes(key) == data:
                return
        except ObjectNotFound:
            pass
        log.error("the stored result is not what was written", action="result_differs", key=key)
        raise StorageUnavailable


def facts(job: Job, ended: datetime) -> JobMetadata:
    """What of the result only the job's row knows. All of it is committed, so every Finalise writes the same bytes."""
    options = job.options.to_json()
    return JobMetadata(
        job_id=job.job_id,
        timestamp=ended,
        language=job.language,
        detected_language=(job.detected_language or "") if job.language == AUTO else job.language,
        model=job.model or "",
        file_sha256=options.pop("file_sha256", ""),
        engine_version=engine_version(),
        options=options,
        duration_seconds=job.audio_duration_seconds or 0.0,
        download_seconds=job.download_seconds or 0.0,
        decode_seconds=job.decode_seconds or 0.0,
        total_seconds=max((ended - (job.started_at or ended)).total_seconds(), 0.0),
    )


def _metrics(result: Result) -> dict[str, float]:
    timings = result.timings
    return {
        "download_seconds": timings.download,
        "decode_seconds": timings.decode,
        "total_seconds": timings.total,
        "real_time_factor": timings.real_time_factor,
    }
