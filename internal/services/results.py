"""What a client gets back: the stored result, the text so far, a download in any format."""

from __future__ import annotations

import asyncio
import json

import structlog

from core.domain import keys
from core.domain.job import JobStatus
from core.domain.result import Result, ResultSegment
from core.errors import (
    InvalidFieldError,
    JobCancelledError,
    JobNotCompletedError,
    JobNotFoundError,
    ObjectDamagedError,
    ObjectNotFound,
)
from core.failure_text import failure_text
from internal.bootstrap import Application
from repositories import jobs
from repositories.models import Job
from worker.exporters import Exporter, formats
from worker.result import merged_segments

log = structlog.get_logger(__name__)


async def find(parts: Application, job_id: str, owner: str) -> Job:
    """The owner's job. Raises JobNotFoundError for an unknown, malformed or somebody else's id."""
    if is_job_id(job_id):
        async with parts.database.read() as session:
            job = await jobs.get(session, job_id, owner)
        if job is not None:
            return job
    raise JobNotFoundError("Job not found: {value}", value=job_id[:100])


def failure(job: Job, language: str) -> str | None:
    """Why the job has no result, in words; None where there is nothing to explain."""
    if job.status == JobStatus.CANCELLED and job.error_code is None:
        return JobCancelledError.general(language)
    return failure_text(job.error_code, job.error_details, job.error_message, language)


def is_job_id(text: str) -> bool:
    """The canonical form of a UUID, as we hand it out: lower case, so that both databases agree."""
    return len(text) == 36 and all(
        letter == "-" if place in (8, 13, 18, 23) else letter in "0123456789abcdef" for place, letter in enumerate(text)
    )


async def stored(parts: Application, job: Job) -> Result:
    """The finished job's result. Raises JobNotCompletedError, ObjectNotFound,
    ObjectDamagedError, StorageUnavailable."""
    return (await _read(parts, job))[1]


async def _read(parts: Application, job: Job) -> tuple[bytes, Result]:
    """The file as it is stored, and what it says. One that cannot be parsed is read once more."""
    if job.status != JobStatus.COMPLETED:
        raise JobNotCompletedError("Job not completed. Current status: {status}", status=str(job.status))
    key = job.minio_result_path or keys.result_key(job.job_id)
    for _ in range(2):
        try:
            data = await parts.storage.get_bytes(key)
            return data, await asyncio.to_thread(_parsed, data)
        except ObjectNotFound as error:
            raise ObjectNotFound("The result file is no longer in storage.") from error
        except (ValueError, LookupError, TypeError) as error:
            log.error("the stored result is damaged", action="result_damaged", key=key, reason=repr(error))  # noqa: TRY400
    raise ObjectDamagedError("The result file was damaged in storage. Submit the recording again.")


def _parsed(data: bytes) -> Result:
    return Result.from_json(json.loads(data))


async def exported(parts: Application, job: Job, name: str) -> tuple[Exporter, bytes]:
    """The result in a format. Raises InvalidFieldError naming the formats there are."""
    kind = formats().get(name)
    if kind is None:
        raise InvalidFieldError(
            "format",
            "`format` {value} is unknown. Use {allowed}.",
            value=repr(name[:20]),
            allowed=", ".join(formats()),
        )
    data, result = await _read(parts, job)
    if name == "json":
        return kind, data
    return kind, await asyncio.to_thread(kind.export, result)


async def so_far(parts: Application, job: Job) -> list[ResultSegment]:
    """Segments of the chunks that are finished, in order."""
    async with parts.database.read() as session:
        chunks = await jobs.list_transcripts(session, job.job_id)
    return await asyncio.to_thread(merged_segments, chunks, job.options.merge_method)
