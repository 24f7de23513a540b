"""Submit a recording: its bytes to storage as they arrive, then one transaction, then one wake-up."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import structlog

from core.domain import keys
from core.errors import (
    AlreadyExists,
    EmptyFileError,
    FileTooLargeError,
    IdempotencyMismatchError,
    InfrastructureError,
    InternalError,
    InvalidFieldError,
    LinkUsedError,
    QuotaExceededError,
    UnsupportedFormatError,
    UploadTimeoutError,
)
from core.storage.port import Upload
from internal.bootstrap import Application
from internal.services.publishing import message_for
from internal.services.submit_options import SubmitOptions
from repositories import idempotency, intents, jobs
from repositories.claims import WakeUp
from repositories.idempotency import IdempotentRequest
from repositories.jobs import NewJob
from repositories.models import Job

log = structlog.get_logger(__name__)
ACCEPTED = (
    *(".mp3", ".wav", ".m4a", ".mp4", ".aac", ".ogg", ".flac", ".wma"),
    *(".webm", ".mkv", ".avi", ".mov", ".opus", ".aiff", ".amr"),
)
MAX_NAME = 255
ROLLED_BACK = (AlreadyExists, InternalError, LinkUsedError, QuotaExceededError, UploadTimeoutError)
"""Errors of the creating transaction that leave no doubt: the database refused a statement, or the code did."""


class Intake:
    """One upload on its way in; a FileSink.

    `discard` leaves nothing behind until `hand_over`: from there on a committed job may refer to the object, so it
    belongs to the job or to the collector of expired intents, and only `take_back` after a certain rollback ends that.
    """

    def __init__(self, parts: Application, *, fingerprint: bool = False) -> None:
        """fingerprint: take the file's SHA-256 on its way, about a second of CPU time per GB."""
        self.parts = parts
        self.fingerprint = fingerprint
        self.job_id = str(uuid.uuid4())
        self.filename = ""
        self.key = ""
        self.size = 0
        self.digest = hashlib.sha256()
        self._upload: Upload | None = None
        self._handed_over = False

    async def begin(self, filename: str) -> None:
        """Raises UnsupportedFormatError; TooManyUploads, StorageUnavailable, DatabaseUnavailable."""
        self.filename = accepted_name(filename)
        self.key = keys.upload_key(self.job_id, self.filename)
        async with self.parts.database.write() as session:
            await intents.create(session, self.key, self.job_id)
        self._upload = await self.parts.storage.open_upload(self.key)

    async def write(self, data: bytes) -> None:
        assert self._upload is not None
        self.size += len(data)
        if self.size > self.parts.settings.max_upload_bytes:
            raise too_large(self.parts)
        if self.fingerprint:
            self.digest.update(data)
        await self._upload.write(data)

    async def finish(self) -> None:
        """The object stands in storage after this. Raises EmptyFileError."""
        assert self._upload is not None
        if self.size == 0:
            raise EmptyFileError
        await self._upload.commit()

    def hand_over(self) -> None:
        """Call this before the transaction that creates the job begins: how it ends may never be known."""
        self._handed_over = True

    def take_back(self) -> None:
        """Call this only where the transaction is known to have been rolled back."""
        self._handed_over = False

    async def discard(self) -> None:
        """Remove what has arrived. Where a part is down the intent stays, and the scheduler collects later."""
        if self._handed_over:
            return
        try:
            if self._upload is not None:
                await self._upload.abort()
                # by the exact key: S3 servers list unfinished multipart uploads that way only
                await self.parts.storage.delete_prefix(self.key)
            if self.key:
                async with self.parts.database.write() as session:
                    await intents.delete(session, self.key)
        except InfrastructureError as error:
            log.warning("upload left to the scheduler to collect", action="discard_delayed", code=error.code)


def too_large(parts: Application) -> FileTooLargeError:
    return FileTooLargeError(
        "The file is larger than {limit} MB. Use a smaller or more compressed one.",
        limit=parts.settings.max_upload_size_mb,
    )


def accepted_name(filename: str) -> str:
    """The name as it is shown. Raises UnsupportedFormatError for an ending that is not in the list."""
    name = display_name(filename)
    if PurePosixPath(name.lower()).suffix not in ACCEPTED:
        raise UnsupportedFormatError(
            "The format of {value} is not supported. Use {allowed}.", value=repr(name), allowed=", ".join(ACCEPTED)
        )
    return name


def display_name(filename: str) -> str:
    """The last part of the name without control characters, at most 255 characters, its ending kept."""
    last = filename.replace("\\", "/").split("/")[-1]
    return "".join(letter for letter in last if letter.isprintable())[-MAX_NAME:]


def request_of(key: str, fields: Mapping[str, Any], file: str = "") -> IdempotentRequest:
    """What a repeated request is recognised by. file: what tells the recording. Raises InvalidFieldError."""
    if not 1 <= len(key) <= MAX_NAME or not key.isprintable():
        raise InvalidFieldError(
            "Idempotency-Key", "`Idempotency-Key` must have 1 to {limit} printable characters.", limit=MAX_NAME
        )
    canonical = json.dumps([dict(fields), file], sort_keys=True, default=str)
    return IdempotentRequest(key, hashlib.sha256(canonical.encode(errors="replace")).hexdigest())


async def recalled(parts: Application, owner: str, request: IdempotentRequest) -> str | None:
    """The job_id that the same request was given. Raises IdempotencyMismatchError for another request."""
    async with parts.database.read() as session:
        found = await idempotency.find(session, owner, request.key)
    if found is None:
        return None
    if found.request_hash != request.request_hash:
        raise IdempotencyMismatchError
    return found.job_id


async def answered_before(parts: Application, owner: str, request: IdempotentRequest) -> Job | None:
    """The job that the same request made; None: it is new, or its job was deleted and the key is free again."""
    job_id = await recalled(parts, owner, request)
    if job_id is None:
        return None
    async with parts.database.read() as session:
        job = await jobs.get(session, job_id, owner)
    if job is None:
        async with parts.database.write() as session:
            await idempotency.delete(session, owner, request.key)
    return job


async def once(
    parts: Application, owner: str, request: IdempotentRequest | None, make: Callable[[], Awaitable[Job]]
) -> tuple[Job, bool]:
    """The job that `make` makes, or the one that the same request made before; whether it is new.

    `make` raises AlreadyExists when somebody else with the same key was faster.
    """
    if request is None:
        return await make(), True
    before = await answered_before(parts, owner, request)
    if before is not None:
        return before, False
    try:
        return await make(), True
    except AlreadyExists:
        before = await answered_before(parts, owner, request)
        if before is None:
            raise
        return before, False


async def accept(
    parts: Application,
    intake: Intake,
    owner: str,
    submit_options: SubmitOptions,
    request: IdempotentRequest | None = None,
) -> Job:
    """Commit an upload's job, then publish its Prepare. Raises AlreadyExists, see `once`."""
    await parts.limiter.submit(owner, intake.size)
    new = new_job(intake.job_id, owner, submit_options)
    new = replace(new, original_filename=intake.filename, audio_key=intake.key, file_size=intake.size)
    intake.hand_over()
    try:
        job = await commit(parts, new, request, noted=True)
    except ROLLED_BACK:
        intake.take_back()
        raise
    await announce(parts, job)
    return job


def new_job(job_id: str, owner: str, submit_options: SubmitOptions) -> NewJob:
    """What every way in has in common."""
    return NewJob(
        job_id=job_id,
        owner=owner,
        language=submit_options.language,
        model=submit_options.model,
        priority=submit_options.priority,
        options=submit_options.options,
        original_filename=None,
        audio_key=None,
        file_size=0,
        callback_url=submit_options.callback_url,
        client_metadata=submit_options.metadata,
        asked_model=submit_options.asked_model,
    )


async def create(
    parts: Application, new: NewJob, request: IdempotentRequest | None = None, *, noted: bool = False
) -> Job:
    """Commit the job, then publish its Prepare. Raises as `commit` does."""
    job = await commit(parts, new, request, noted=noted)
    await announce(parts, job)
    return job


async def commit(
    parts: Application, new: NewJob, request: IdempotentRequest | None, *, noted: bool, link: str | None = None
) -> Job:
    """Insert the job with its idempotency key.

    noted: an intent stands for its object, and goes with the COMMIT. link: the key of the upload link it uses up.

    Raises AlreadyExists, DatabaseUnavailable; UploadTimeoutError where the intent has expired meanwhile.
    """
    async with parts.database.write() as session:
        if link is not None and not await intents.consume_link(session, link):
            raise LinkUsedError
        if noted and not await intents.fulfil(session, new.audio_key or ""):
            raise UploadTimeoutError("The upload took too long. Send it again.")
        await parts.limiter.admit(session, new.owner, new.file_size)
        job = await jobs.create(session, new)
        if request is not None:
            await idempotency.store(session, new.owner, request, job.job_id, {"job_id": job.job_id})
    return job


async def announce(parts: Application, job: Job) -> None:
    """Publish the first step of a committed job. Raises nothing but cancellation."""
    log.info("job accepted", action="job_accepted", job_id=job.job_id, mb=job.file_size_mb, model=job.model)
    await parts.publisher.publish([message_for(job, WakeUp(job.job_id, None, 0))])
