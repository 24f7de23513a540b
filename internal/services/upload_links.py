"""Upload by link: the sender puts the bytes into storage himself and then starts the job."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

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
from core.storage.port import ObjectInfo
from internal.bootstrap import Application
from internal.services import results, submissions
from internal.services.submit_options import SubmitOptions
from repositories import idempotency, intents
from repositories.idempotency import IdempotentRequest
from repositories.models import Job, UploadIntent

log = structlog.get_logger(__name__)
PURPOSE = "upload link"
CLEARING = 2.0
"""Seconds that a start may wait for the object of its link to be removed."""
SLACK = 3600.0
"""Seconds past the link's end in which the job can still be started."""


@dataclass(frozen=True, slots=True)
class Link:
    """url: where the bytes go with PUT; a path of our own API where storage has no address of its own."""

    job_id: str
    url: str
    expires_at: datetime


async def promise(
    parts: Application, owner: str, filename: str, submit_options: SubmitOptions, request: IdempotentRequest | None
) -> Link:
    """Raises UnsupportedFormatError, QuotaExceededError, IdempotencyMismatchError; StorageUnavailable."""
    job_id = await submissions.recalled(parts, owner, request) if request else None
    if job_id is None:
        job_id = str(uuid.uuid4())
        name = submissions.accepted_name(filename)
        stored = {**asdict(submit_options), "options": submit_options.options.to_json(), "filename": name}
        lifetime = parts.settings.upload_link_ttl_seconds + SLACK
        try:
            async with parts.database.write() as session:
                await parts.limiter.link(session, owner)
                key = keys.incoming_key(job_id, name)
                await intents.create(session, key, job_id, lifetime, owner=owner, submit_options=stored)
                if request is not None:
                    await idempotency.store(session, owner, request, job_id, {"job_id": job_id})
        except AlreadyExists:
            # the same request, twice at once: the other was faster
            job_id = (await submissions.recalled(parts, owner, request) if request else None) or job_id
    return await _link(parts, job_id, keys.incoming_key(job_id, submissions.display_name(filename)))


async def _link(parts: Application, job_id: str, key: str) -> Link:
    ttl = parts.settings.upload_link_ttl_seconds
    expires = datetime.now(UTC) + timedelta(seconds=ttl)
    url = await parts.storage.upload_link(key, ttl)
    if url is None:
        until = int(expires.timestamp())
        signature = parts.secret.sign(PURPOSE, f"{job_id} {until}")
        url = f"/api/v1/uploads/{job_id}?expires={until}&signature={signature}"
    return Link(job_id, url, expires)


async def intake_of(parts: Application, job_id: str, expires: int, signature: str) -> UploadIntent:
    """What a signed link of our own allows to be written. Raises UnauthorizedError, JobNotFoundError."""
    if time.time() > expires or not parts.secret.verify(PURPOSE, f"{job_id} {expires}", signature):
        raise UnauthorizedError(
            "The upload link is invalid or has expired. Request a new one with POST /api/v1/uploads."
        )
    async with parts.database.read() as session:
        found = await intents.get_link(session, job_id)
    if found is None:
        raise JobNotFoundError("Job not found: {value}", value=job_id[:100])
    return found


async def start(parts: Application, owner: str, job_id: str) -> Job:
    """Make the job of what was uploaded; harmless twice.

    What was weighed is what the job reads: exactly that version of the object is copied to a key of the job's own,
    which the link, valid for a while yet, cannot write. Raises NothingUploadedError, FileTooLargeError, EmptyFileError,
    JobNotFoundError, QuotaExceededError; ConflictError where the object was replaced meanwhile.
    """
    intent = None
    if results.is_job_id(job_id):
        async with parts.database.read() as session:
            intent = await intents.get_link(session, job_id)
    if intent is None or intent.owner != owner:
        return await results.find(parts, job_id, owner)
    stored = dict(intent.submit_options or {})
    name = stored.pop("filename", None)
    found = await _weighed(parts, intent.key)
    key = keys.pinned_key(job_id, secrets.token_hex(4), name or "")
    await _pin(parts, found, key, job_id)
    new = replace(
        submissions.new_job(job_id, owner, _submit_options(stored)),
        original_filename=name,
        audio_key=key,
        file_size=found.size,
    )
    try:
        job = await submissions.commit(parts, new, None, noted=True, link=intent.key)
    except submissions.ROLLED_BACK as error:
        await _discard(parts, key)
        if isinstance(error, AlreadyExists | LinkUsedError):
            return await results.find(parts, job_id, owner)
        raise
    await submissions.announce(parts, job)
    await _clear(parts, intent.key)
    return job


async def _clear(parts: Application, key: str) -> None:
    """Remove what the link wrote. Its note stays, for whatever a PUT still writes before the link's end."""
    try:
        async with asyncio.timeout(CLEARING):
            await parts.storage.delete(key)
    except (InfrastructureError, TimeoutError) as error:
        log.warning("object of a used link left to the scheduler", action="clear_delayed", reason=repr(error))


async def _pin(parts: Application, found: ObjectInfo, key: str, job_id: str) -> None:
    async with parts.database.write() as session:
        await intents.create(session, key, job_id)
    try:
        await parts.storage.copy(found, key)
    except ObjectNotFound:
        raise ConflictError(
            "The recording was replaced while the job was being started. Start the job again."
        ) from None


async def _discard(parts: Application, key: str) -> None:
    """Remove the copy of a start that made no job; where a part is down its note stays for the collector."""
    try:
        await parts.services.retention.remove_object(key)
    except InfrastructureError as error:
        log.warning("copy left to the scheduler to collect", action="discard_delayed", code=error.code)


async def is_open(parts: Application, job_id: str) -> bool:
    """Whether the link can still be started."""
    async with parts.database.read() as session:
        return await intents.get_link(session, job_id) is not None


def _submit_options(stored: dict[str, Any]) -> SubmitOptions:
    options = JobOptions.from_json(stored.get("options") or {})
    return SubmitOptions(**{**stored, "priority": Priority(stored["priority"]), "options": options})


async def _weighed(parts: Application, key: str) -> ObjectInfo:
    found = await parts.storage.stat(key)
    if found is None:
        raise NothingUploadedError
    if found.size > parts.settings.max_upload_bytes:
        await parts.storage.delete_prefix(key)
        raise submissions.too_large(parts)
    if found.size == 0:
        raise EmptyFileError
    return found
