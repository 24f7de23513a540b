"""Results: the stored transcript, the finished part of a running job, exports."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from typing import Any

import structlog

from core.database import Database
from core.domain import keys
from core.domain.corrections import corrected_result
from core.domain.job import JobStatus
from core.domain.result import Result, ResultSegment
from core.errors import InvalidFieldError, JobNotCompletedError, ObjectDamagedError, ObjectNotFound
from core.storage.port import Storage
from internal.services.job_views import progress_of
from repositories import corrections, jobs
from repositories.models import Job
from worker.exporters import Exporter, formats
from worker.result import confidence, merged_segments

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Transcript:
    """A job with its text, or its finished part. Attributes that are not defined here are the job row's."""

    job: Job
    segments: list[ResultSegment]
    text: str

    @property
    def progress(self) -> float:
        return progress_of(self.job)

    @property
    def duration_seconds(self) -> float:
        return round(self.job.audio_duration_seconds or 0.0, 3)

    @property
    def language(self) -> str:
        return self.job.detected_language or self.job.language

    @property
    def confidence(self) -> float:
        return confidence(self.segments) if self.job.confidence is None else self.job.confidence

    @property
    def processing_time(self) -> float:
        return self.job.processing_seconds or 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.job, name)


@dataclass(frozen=True, slots=True)
class Results:
    """Transcripts of finished and running jobs."""

    database: Database
    storage: Storage

    async def transcript(self, job: Job, *, partial: bool = False, corrected: bool = True) -> Transcript:
        """Return the job's transcript. partial: if the job has none, return the segments of its finished chunks.

        corrected: with people's corrections.

        Raises as `read` does.
        """
        if partial and job.status != JobStatus.COMPLETED:
            async with self.database.read() as session:
                chunks = await jobs.list_transcripts(session, job.job_id)
            segments = await asyncio.to_thread(merged_segments, chunks, job.options.merge_method)
            return Transcript(job, segments, " ".join(segment.text for segment in segments))
        result = await self.read(job)
        if corrected:
            result = await self._correct(result)
        return Transcript(job, list(result.segments), result.text)

    async def read(self, job: Job) -> Result:
        """Return the stored result of a completed job.

        Raises JobNotCompletedError, ObjectNotFound, ObjectDamagedError, StorageUnavailable.
        """
        return (await self._read_file(job))[1]

    async def export(self, job: Job, name: str, *, corrected: bool = True) -> tuple[Exporter, bytes]:
        """Return the result in the named format. Raises InvalidFieldError, and as `read` does.

        corrected: with people's corrections; the JSON has the machine's text beside them. In the other formats a
        segment that was corrected to nothing is left out.
        """
        exporter = formats().get(name)
        if exporter is None:
            raise InvalidFieldError(
                "format",
                "`format` {value} is unknown. Use {allowed}.",
                value=repr(name[:20]),
                allowed=", ".join(formats()),
            )
        data, stored = await self._read_file(job)
        result = await self._correct(stored) if corrected else stored
        if name == "json" and result is stored:
            return exporter, data
        if name != "json":
            result = replace(result, segments=tuple(segment for segment in result.segments if segment.text))
        return exporter, await asyncio.to_thread(exporter.export, result)

    async def _correct(self, result: Result) -> Result:
        async with self.database.read() as session:
            changes = await corrections.list_changes(session, result.job_id)
        return await asyncio.to_thread(corrected_result, result, changes) if changes else result

    async def _read_file(self, job: Job) -> tuple[bytes, Result]:
        """Return the stored file and its parsed content. A file that cannot be parsed is read once more."""
        if job.status != JobStatus.COMPLETED:
            raise JobNotCompletedError("Job not completed. Current status: {status}", status=str(job.status))
        key = job.minio_result_path or keys.result_key(job.job_id)
        for _ in range(2):
            try:
                data = await self.storage.get_bytes(key)
                return data, await asyncio.to_thread(_parse, data)
            except ObjectNotFound as error:
                raise ObjectNotFound("The result file is no longer in storage.") from error
            except (ValueError, LookupError, TypeError) as error:
                log.error("stored result is damaged", action="result_damaged", key=key, reason=repr(error))  # noqa: TRY400
        raise ObjectDamagedError("The result file was damaged in storage. Submit the recording again.")


def _parse(data: bytes) -> Result:
    return Result.from_json(json.loads(data))
