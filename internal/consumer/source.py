"""Where a job's recording comes from: storage, into which one at a sender's address is fetched first."""

from __future__ import annotations

import asyncio
import errno
import time
from functools import partial
from http import HTTPStatus
from pathlib import Path

import structlog

from core.domain import keys
from core.domain.job import JobStatus
from core.errors import (
    DiskFullError,
    NetworkError,
    ObjectDamagedError,
    ObjectNotFound,
    SourceNotFoundError,
    SttError,
)
from core.outbound import Limits, Refused, Response, TooLarge, Unreachable
from internal.consumer.context import Context
from internal.services.incoming_upload import file_too_large
from repositories import jobs
from repositories.models import Job

log = structlog.get_logger(__name__)
BLOCK = 1024 * 1024
LOOK_EVERY = 5.0
"""Seconds between two looks at whether the job is still wanted."""
FAILED = "Failed to download audio file: {reason}"


async def obtain(context: Context, job: Job, target: Path) -> None:
    """Write the recording to `target`. Raises SourceNotFoundError, FileTooLargeError, ObjectDamagedError."""
    if job.media_url is not None:
        await _weigh(context, job)
    await _download(context, job, target)


async def _download(context: Context, job: Job, target: Path) -> None:
    """Download the stored recording. One of another length than was submitted (0: not measured) is read once more.

    Raises SourceNotFoundError, ObjectDamagedError.
    """
    if job.minio_audio_path is None:
        raise SourceNotFoundError
    submitted = round((job.file_size_mb or 0.0) * 1024 * 1024)
    for _ in range(2):
        try:
            size = await context.outage_retry.run(partial(context.parts.storage.download, job.minio_audio_path, target))
        except ObjectNotFound as error:
            raise SourceNotFoundError from error
        if size == submitted or not submitted:
            return
        log.warning("recording differs in length", action="source_length", bytes=size, bytes_submitted=submitted)
    raise ObjectDamagedError("The stored recording is not as long as the one that was sent. Upload it again.")


async def _weigh(context: Context, job: Job) -> None:
    """An object that the sender put there himself has not been measured yet."""
    found = await context.outage_retry.run(partial(context.parts.storage.stat, job.minio_audio_path or ""))
    if found is None:
        raise SourceNotFoundError(FAILED, reason="there is no such object in storage")
    if found.size > context.parts.settings.max_upload_bytes:
        raise file_too_large(context.parts.settings.max_upload_bytes)


async def fetch(context: Context, job: Job, target: Path) -> tuple[str, int]:
    """Fetch the recording by way of `target` into storage. Returns its key and its size in bytes.

    Raises SourceNotFoundError, FileTooLargeError, NetworkError, DiskFullError.
    """
    size = await _fetch(context, job, job.media_url or "", target)
    key = keys.upload_key(job.job_id, job.original_filename or "recording")
    await context.outage_retry.run(partial(context.parts.storage.put_file, key, target))
    return key, size


async def _fetch(context: Context, job: Job, url: str, target: Path) -> int:
    """Returns its size in bytes."""
    settings = context.parts.settings
    limits = Limits(
        total=settings.download_timeout_seconds,
        max_bytes=settings.max_upload_bytes,
        min_rate=settings.download_min_rate * 1024,
    )
    try:
        async with context.parts.media.get(url, limits) as response:
            _check(response)
            size = await _write(context, job, response, target)
    except Refused as error:
        raise SourceNotFoundError(FAILED, reason=str(error)) from error
    except Unreachable as error:
        raise NetworkError(FAILED, reason=str(error)) from error
    except TooLarge as error:
        raise file_too_large(context.parts.settings.max_upload_bytes) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError from error
        raise
    log.info("recording fetched", action="fetched", bytes=size, file=job.original_filename)
    return size


def _check(response: Response) -> None:
    """Only 200 is a recording; what may pass by itself is worth another try, the rest is not."""
    if response.status == HTTPStatus.OK:
        return
    passing = response.status >= 500 or response.status in (408, 425, 429)
    kind: type[SttError] = NetworkError if passing else SourceNotFoundError
    phrase = (response.reason or _phrase(response.status)).strip() or "-"
    raise kind("Failed to download audio file: {status} {phrase}", status=response.status, phrase=phrase)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


async def _write(context: Context, job: Job, response: Response, target: Path) -> int:
    """A block at a time, each in a thread: a full or slow disk must not stop the heartbeats. Returns how many bytes."""
    size, looked = 0, time.monotonic()
    with await asyncio.to_thread(target.open, "wb") as file:
        block = bytearray()
        async for piece in response.body():
            block += piece
            size += len(piece)
            if time.monotonic() - looked > LOOK_EVERY:
                await _still_wanted(context, job)
                looked = time.monotonic()
            if len(block) >= BLOCK:
                await asyncio.to_thread(file.write, bytes(block))
                block.clear()
        await asyncio.to_thread(file.write, bytes(block))
        await asyncio.to_thread(file.flush)
    return size


async def _still_wanted(context: Context, job: Job) -> None:
    """A slow server must not hold a worker for a job that has been cancelled or deleted meanwhile."""
    async with context.parts.database.read() as session:
        found = await jobs.get(session, job.job_id)
    if found is None or JobStatus(found.status).terminal:
        raise SourceNotFoundError(FAILED, reason="the job has ended")
