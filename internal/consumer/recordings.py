"""A job's recording: downloaded from storage, or fetched into storage from its URL."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path

import structlog

from core.config import Settings
from core.database import Database
from core.domain import keys
from core.domain.job import JobStatus
from core.errors import (
    NetworkError,
    ObjectDamagedError,
    ObjectNotFound,
    SourceNotFoundError,
    SttError,
)
from core.faults import machine_fault
from core.files import BLOCK_SIZE, own_file_errors
from core.outbound import Limits, Outbound, Refused, Response, TooLarge, Unreachable
from core.storage.port import Storage
from internal.outage_retry import OutageRetry
from internal.services.incoming_upload import file_too_large
from repositories import jobs
from repositories.models import Job

log = structlog.get_logger(__name__)
STATUS_INTERVAL = 5.0
"""Seconds between two checks, during a fetch, that the job has not ended."""
DOWNLOAD_FAILED = "Failed to download audio file: {reason}"


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """Limits of a recording. fetch_timeout: seconds; min_rate: bytes per second."""

    max_bytes: int
    fetch_timeout: float
    min_rate: float

    @classmethod
    def from_settings(cls, settings: Settings) -> RecordingLimits:
        return cls(settings.max_upload_bytes, settings.download_timeout_seconds, settings.download_min_rate * 1024)


@dataclass(frozen=True, slots=True)
class Recordings:
    """Access to the recordings of jobs."""

    database: Database
    storage: Storage
    media: Outbound
    outage_retry: OutageRetry
    limits: RecordingLimits

    async def download(self, job: Job, target: Path) -> None:
        """Make the stored recording available as the file `target`, trying twice if its size is not the submitted one.

        Raises SourceNotFoundError, FileTooLargeError, ObjectDamagedError, StorageUnavailable.
        """
        if job.media_url is not None:
            # an object that the client itself put into storage has not been measured yet
            stored = await self.outage_retry.run(partial(self.storage.stat, job.minio_audio_path or ""))
            if stored is None:
                raise SourceNotFoundError(DOWNLOAD_FAILED, reason="the object does not exist in storage")
            if stored.size > self.limits.max_bytes:
                raise file_too_large(self.limits.max_bytes)
        if job.minio_audio_path is None:
            raise SourceNotFoundError
        submitted = round((job.file_size_mb or 0.0) * 1024 * 1024)  # 0: not measured
        for _ in range(2):
            try:
                size = await self.outage_retry.run(partial(self.storage.download, job.minio_audio_path, target))
            except ObjectNotFound as error:
                raise SourceNotFoundError from error
            if size == submitted or not submitted:
                return
            log.warning("recording differs in length", action="source_length", bytes=size, bytes_submitted=submitted)
        raise ObjectDamagedError("The stored recording's size differs from the uploaded size. Upload it again.")

    async def fetch(self, job: Job, target: Path) -> tuple[str, int]:
        """Fetch the recording into the file `target`, then into storage. Return its key and its size in bytes.

        Raises SourceNotFoundError, FileTooLargeError, NetworkError, MachineError, StorageUnavailable.
        """
        limits = Limits(total=self.limits.fetch_timeout, max_bytes=self.limits.max_bytes, min_rate=self.limits.min_rate)
        try:
            async with self.media.get(job.media_url or "", limits) as response:
                _check_status(response)
                size = await self._write(job, response, target)
        except Refused as error:
            raise SourceNotFoundError(DOWNLOAD_FAILED, reason=str(error)) from error
        except Unreachable as error:
            _check_descriptors()
            raise machine_fault(error) or NetworkError(DOWNLOAD_FAILED, reason=str(error)) from error
        except TooLarge as error:
            raise file_too_large(self.limits.max_bytes) from error
        log.info("recording fetched", action="fetched", bytes=size, file=job.original_filename)
        key = keys.upload_key(job.job_id, job.original_filename or "recording")
        await self.outage_retry.run(partial(self.storage.put_file, key, target))
        return key, size

    async def _write(self, job: Job, response: Response, target: Path) -> int:
        """Write the body and return its bytes. Blocks are written in a thread: a slow disk must not stop heartbeats."""
        size, checked_at = 0, time.monotonic()
        with own_file_errors():
            file = await asyncio.to_thread(target.open, "wb")
        with file:
            block = bytearray()
            async for piece in response.body():
                block += piece
                size += len(piece)
                if time.monotonic() - checked_at > STATUS_INTERVAL:
                    await self._check_active(job)
                    checked_at = time.monotonic()
                if len(block) >= BLOCK_SIZE:
                    with own_file_errors():
                        await asyncio.to_thread(file.write, bytes(block))
                    block.clear()
            with own_file_errors():
                await asyncio.to_thread(file.write, bytes(block))
                await asyncio.to_thread(file.flush)
        return size

    async def _check_active(self, job: Job) -> None:
        # a slow server must not occupy a consumer for a job that was cancelled or deleted meanwhile
        async with self.database.read() as session:
            current = await jobs.get(session, job.job_id)
        if current is None or JobStatus(current.status).terminal:
            raise SourceNotFoundError(DOWNLOAD_FAILED, reason="the job has ended")


def _check_status(response: Response) -> None:
    """Raise NetworkError, which is retried, for a transient status, SourceNotFoundError for any other but 200."""
    if response.status == HTTPStatus.OK:
        return
    transient = response.status >= 500 or response.status in (408, 425, 429)
    kind: type[SttError] = NetworkError if transient else SourceNotFoundError
    phrase = (response.reason or _standard_phrase(response.status)).strip() or "-"
    raise kind("Failed to download audio file: {status} {phrase}", status=response.status, phrase=phrase)


def _standard_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _check_descriptors() -> None:
    """Raise MachineError if no file can be opened: a resolver without a socket reports an unknown host."""
    with own_file_errors():
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
