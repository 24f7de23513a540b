"""Upload links: the client puts the bytes into storage, then starts the job."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from core.database import Database
from core.domain import keys
from core.domain.job import Priority
from core.domain.job_options import JobOptions
from core.errors import (
    AlreadyExists,
    ConflictError,
    EmptyFileError,
    InfrastructureError,
    JobNotFoundError,
    LinkUsedError,
    NothingUploadedError,
    ObjectNotFound,
    UnauthorizedError,
)
from core.secret import Secret
from core.storage.port import ObjectInfo, Storage
from internal.services.idempotency import IdempotentRequests
from internal.services.incoming_upload import accepted_name, display_name, file_too_large
from internal.services.jobs import Jobs, is_job_id, job_not_found
from internal.services.limiting import Limiter
from internal.services.retention import Retention
from internal.services.submissions import ROLLED_BACK, Submissions, new_job
from internal.services.submit_options import SubmitOptions
from repositories import idempotency, intents, jobs
from repositories.idempotency import IdempotentRequest
from repositories.models import Job, UploadIntent

log = structlog.get_logger(__name__)
PURPOSE = "upload link"
DELETE_TIMEOUT = 2.0
"""Seconds that `start` waits for the deletion of the uploaded object."""
START_MARGIN = 3600.0
"""Seconds after the link's expiry for which the job can still be started."""


@dataclass(frozen=True, slots=True)
class UploadLink:
    """A link to upload to. url: for a PUT of the bytes; a path of this API if clients cannot reach the storage."""

    job_id: str
    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class UploadLinks:
    """Creation and use of upload links. ttl_seconds: time for which a link accepts bytes."""

    database: Database
    storage: Storage
    secret: Secret
    limiter: Limiter
    idempotent_requests: IdempotentRequests
    submissions: Submissions
    jobs: Jobs
    retention: Retention
    ttl_seconds: int

    async def create(
        self, owner: str, filename: str, options: SubmitOptions, request: IdempotentRequest | None
    ) -> UploadLink:
        """Create a link.

        Raises UnsupportedFormatError, QuotaExceededError, IdempotencyMismatchError; StorageUnavailable.
        """
        lifetime = self.ttl_seconds + START_MARGIN
        job_id = await self._extend_previous(owner, request, lifetime) if request else None
        if job_id is None:
            job_id = str(uuid.uuid4())
            name = accepted_name(filename)
            stored = {**asdict(options), "options": options.options.to_json(), "filename": name}
            try:
                async with self.database.write() as session:
                    await self.limiter.enforce_link_quota(session, owner)
                    key = keys.incoming_key(job_id, name)
                    await intents.create(session, key, job_id, lifetime, owner=owner, submit_options=stored)
                    if request is not None:
                        await idempotency.store(session, owner, request, job_id, {"job_id": job_id})
            except AlreadyExists:
                # a concurrent request with the same key was first
                job_id = (await self.idempotent_requests.find_job_id(owner, request) if request else None) or job_id
        return await self._link(job_id, keys.incoming_key(job_id, display_name(filename)))

    async def _extend_previous(self, owner: str, request: IdempotentRequest, lifetime: float) -> str | None:
        """Extend the link of the same earlier request and return its job id; free the key if the link is gone."""
        job_id = await self.idempotent_requests.find_job_id(owner, request)
        if job_id is None:
            return None
        async with self.database.write() as session:
            if await intents.extend_link(session, job_id, lifetime) or await jobs.get(session, job_id, owner):
                return job_id
            await idempotency.delete(session, owner, request.key)
            return None

    async def _link(self, job_id: str, key: str) -> UploadLink:
        expires_at = datetime.now(UTC) + timedelta(seconds=self.ttl_seconds)
        url = await self.storage.upload_link(key, self.ttl_seconds)
        if url is None:
            timestamp = int(expires_at.timestamp())
            signature = self.secret.sign(PURPOSE, f"{job_id} {timestamp}")
            url = f"/api/v1/uploads/{job_id}?expires={timestamp}&signature={signature}"
        return UploadLink(job_id, url, expires_at)

    async def open(self, job_id: str, expires: int, signature: str) -> UploadIntent:
        """Return the intent of a signed link to this API. Raises UnauthorizedError, JobNotFoundError."""
        if time.time() > expires or not self.secret.verify(PURPOSE, f"{job_id} {expires}", signature):
            raise UnauthorizedError(
                "The upload link is invalid or has expired. Request a new one with POST /api/v1/uploads."
            )
        async with self.database.read() as session:
            intent = await intents.get_link(session, job_id)
        if intent is None:
            raise job_not_found(job_id)
        return intent

    async def store(self, intent: UploadIntent, pieces: AsyncIterator[bytes]) -> None:
        """Write the bytes to the link's object. Raises FileTooLargeError; ConflictError if the job has started."""
        upload = await self.storage.open_upload(intent.key)
        size = 0
        try:
            async for data in pieces:
                size += len(data)
                if size > self.submissions.max_upload_bytes:
                    raise file_too_large(self.submissions.max_upload_bytes)
                await upload.write(data)
            await upload.commit()
            async with self.database.read() as session:
                if await intents.get_link(session, intent.job_id) is None:
                    raise ConflictError("The job has already been started; this upload is not part of it.")
        except BaseException:
            await asyncio.shield(upload.abort())
            raise

    async def start(self, owner: str, job_id: str) -> Job:
        """Create the job of the uploaded object. Idempotent.

        Copies the version of the object whose size was checked to a key of the job, which the link, still valid for a
        while, cannot write to. Raises NothingUploadedError, FileTooLargeError, EmptyFileError,
        JobNotFoundError, QuotaExceededError; ConflictError if the object was replaced meanwhile.
        """
        intent = None
        if is_job_id(job_id):
            async with self.database.read() as session:
                intent = await intents.get_link(session, job_id)
        if intent is None or intent.owner != owner:
            return await self.jobs.find(job_id, owner)
        stored = dict(intent.submit_options or {})
        name = stored.pop("filename", None)
        key = keys.pinned_key(job_id, secrets.token_hex(4), name or "")
        try:
            uploaded = await self._check_object(intent.key)
            await self._copy(uploaded, key, job_id)
        except (NothingUploadedError, ConflictError):
            # a start that ran meanwhile has created the job and deleted the upload
            with contextlib.suppress(JobNotFoundError):
                return await self.jobs.find(job_id, owner)
            raise
        new = replace(
            new_job(job_id, owner, _submit_options(stored)),
            original_filename=name,
            audio_key=key,
            file_size=uploaded.size,
        )
        try:
            job = await self.submissions.commit(new, None, has_intent=True, link=intent.key)
        except ROLLED_BACK as error:
            await self._discard_copy(key)
            if isinstance(error, AlreadyExists | LinkUsedError):
                return await self.jobs.find(job_id, owner)
            raise
        await self.submissions.announce(job)
        await self._delete_upload(intent.key)
        return job

    async def _check_object(self, key: str) -> ObjectInfo:
        uploaded = await self.storage.stat(key)
        if uploaded is None:
            raise NothingUploadedError
        if uploaded.size > self.submissions.max_upload_bytes:
            await self.storage.delete_prefix(key)
            raise file_too_large(self.submissions.max_upload_bytes)
        if uploaded.size == 0:
            raise EmptyFileError
        return uploaded

    async def _copy(self, uploaded: ObjectInfo, key: str, job_id: str) -> None:
        async with self.database.write() as session:
            await intents.create(session, key, job_id)
        try:
            await self.storage.copy(uploaded, key)
        except ObjectNotFound:
            raise ConflictError(
                "The recording was replaced while the job was being started. Start the job again."
            ) from None

    async def _discard_copy(self, key: str) -> None:
        """Remove the copy of a start that created no job. During an outage, the scheduler collects it later."""
        try:
            await self.retention.remove_object(key)
        except InfrastructureError as error:
            log.warning("copy left to the scheduler to collect", action="discard_delayed", code=error.code)

    async def _delete_upload(self, key: str) -> None:
        """Delete the uploaded object. Its intent stays: until the link expires, a PUT may write the object again."""
        try:
            async with asyncio.timeout(DELETE_TIMEOUT):
                await self.storage.delete(key)
        except (InfrastructureError, TimeoutError) as error:
            log.warning("object of a used link left to the scheduler", action="clear_delayed", reason=repr(error))


def _submit_options(stored: dict[str, Any]) -> SubmitOptions:
    options = JobOptions.from_json(stored.get("options") or {})
    return SubmitOptions(**{**stored, "priority": Priority(stored["priority"]), "options": options})
