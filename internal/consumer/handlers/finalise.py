"""Finalise: merge the chunks, write the result files, complete the job once, delete its working audio."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core import tracing
from core.consumer_metrics import JOB_AUDIO, JOB_FACTOR, JOB_SECONDS
from core.domain import keys
from core.domain.job import AUTO
from core.domain.result import Result
from core.domain.transcript import ChunkTranscript
from core.errors import ObjectNotFound, StorageUnavailable
from core.messaging.port import Delivery, Verdict
from core.metrics import JOBS_ENDED, label
from core.storage.port import Storage
from internal.consumer.retrying_database import RetryingDatabase
from internal.consumer.step_runner import StepRunner
from internal.outage_retry import OutageRetry
from internal.services.publishing import Publisher
from internal.services.retention import Retention
from repositories import admission, claims, commits, jobs
from repositories.claims import Claim, ClaimRequest
from repositories.commits import JobOutcome
from repositories.models import Job
from worker.exporters import formats
from worker.result import JobMetadata, build_result

log = structlog.get_logger(__name__)
DEADLINE = 600.0
"""Working seconds of one Finalise."""


@dataclass(frozen=True, slots=True)
class FinaliseHandler:
    """Handler of Finalise messages. result_ttl: seconds until a completed job expires."""

    steps: StepRunner
    database: RetryingDatabase
    storage: Storage
    outage_retry: OutageRetry
    publisher: Publisher
    retention: Retention
    result_ttl: int

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message

        async def claim(session: AsyncSession, request: ClaimRequest) -> tuple[Claim, Job] | None:
            return await claims.claim_finalise(session, message.job_id, message.failures, request)

        verdict, _ = await self.steps.run(delivery, DEADLINE, claim, self._finalise)
        return verdict

    async def _finalise(self, claimed: tuple[Claim, Job]) -> None:
        _, job = claimed
        chunks, last_commit = await self.database.read(lambda session: _read_chunks(session, job))
        metadata = job_metadata(job, last_commit)
        result = await asyncio.to_thread(build_result, metadata, chunks, job.options.merge_method)
        await self._write_result(job.job_id, result)
        outcome = JobOutcome(
            result_path=keys.result_key(job.job_id),
            text=result.text,
            confidence=result.confidence,
            processing_seconds=result.timings.total,
            result_ttl=self.result_ttl,
            metrics=_metrics(result),
        )
        audio = await self.database.write(lambda session: commits.complete_job(session, job.job_id, outcome))
        action = "job_duplicate" if audio is None else "job_completed"
        log.info("job finished", action=action, **_metrics(result))
        if audio is None:
            return
        _count(job, result)
        wake_ups = await self.database.write(
            lambda session: admission.admit_next(session, job.owner, claims.unprepared())
        )
        await self.publisher.publish_rows(wake_ups)
        for key in audio:
            await self.retention.remove_object(key)

    async def _write_result(self, job_id: str, result: Result) -> None:
        """Write the result in all stored formats at once. Raises StorageUnavailable."""
        writes = [self._write_format(job_id, result, name) for name in keys.RESULT_EXTENSIONS]
        for outcome in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _write_format(self, job_id: str, result: Result, name: str) -> None:
        exporter = formats()[name]
        data = await asyncio.to_thread(exporter.export, result)
        key = keys.result_key(job_id, name)
        await self.outage_retry.run(partial(self._store, key, data, exporter.media_type))

    async def _store(self, key: str, data: bytes, media_type: str) -> None:
        """Write an object and read it back, so that no job completes without its result. Raises StorageUnavailable."""
        await self.storage.put_bytes(key, data, media_type)
        try:
            if await self.storage.get_bytes(key) == data:
                return
        except ObjectNotFound:
            pass
        log.error("stored result differs from the written one", action="result_differs", key=key)
        raise StorageUnavailable


async def _read_chunks(session: AsyncSession, job: Job) -> tuple[list[ChunkTranscript], datetime]:
    """Return the transcripts of the chunks and the time of the last commit."""
    chunks = await jobs.list_transcripts(session, job.job_id)
    last_commit = await jobs.last_committed_at(session, job.job_id)
    return chunks, last_commit or job.progressed_at or job.created_at


def job_metadata(job: Job, last_commit: datetime) -> JobMetadata:
    """Return the job's part of the result, from committed rows only, so that every Finalise writes the same bytes."""
    options = job.options.to_json()
    return JobMetadata(
        job_id=job.job_id,
        timestamp=last_commit,
        language=job.language,
        detected_language=metadata_language(job),
        model=job.model or "",
        file_sha256=options.pop("file_sha256", ""),
        options=options,
        duration_seconds=job.audio_duration_seconds or 0.0,
        download_seconds=job.download_seconds or 0.0,
        decode_seconds=job.decode_seconds or 0.0,
        total_seconds=max((last_commit - (job.started_at or last_commit)).total_seconds(), 0.0),
    )


def _count(job: Job, result: Result) -> None:
    model, language = label(job.model), label(metadata_language(job))
    tracing.record_job(job.job_id, job.created_at, "COMPLETED")
    JOBS_ENDED.labels("COMPLETED", "", model, language).inc()
    JOB_AUDIO.labels(model, language).inc(job.audio_duration_seconds or 0.0)
    JOB_SECONDS.labels(model).observe((datetime.now(UTC) - job.created_at).total_seconds())
    JOB_FACTOR.labels(model).observe(result.timings.real_time_factor)


def metadata_language(job: Job) -> str:
    """Return the language of the job, or the detected one."""
    return (job.detected_language or "") if job.language == AUTO else job.language


def _metrics(result: Result) -> dict[str, float]:
    timings = result.timings
    return {
        "download_seconds": timings.download,
        "decode_seconds": timings.decode,
        "total_seconds": timings.total,
        "real_time_factor": timings.real_time_factor,
    }
