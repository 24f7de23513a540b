"""Upload by link: the sender puts the bytes into storage himself and then starts the job."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError

from core.domain import keys
from core.domain.job import Priority
from core.errors import (
    EmptyFileError,
    JobNotFoundError,
    NothingUploadedError,
    UnauthorizedError,
    UploadTimeoutError,
)
from internal.bootstrap import Parts
from internal.services import results, submit
from internal.services.wishes import Wishes
from repositories import idempotency, intents
from repositories.idempotency import Remembered
from repositories.models import Job, UploadIntent

PURPOSE = "upload link"
SLACK = 3600.0
"""Seconds past the link's end in which the job can still be started."""


@dataclass(frozen=True, slots=True)
class Link:
    """url: where the bytes go with PUT; a path of our own API where storage has no address of its own."""

    job_id: str
    url: str
    expires_at: datetime


async def promise(parts: Parts, owner: str, filename: str, wishes: Wishes, request: Remembered | None) -> Link:
    """Raises UnsupportedFormatError, QuotaExceededError, IdempotencyMismatchError; StorageUnavailable."""
    await parts.limiter.submit(owner)
    job_id = await submit.recalled(parts, owner, request) if request else None
    if job_id is None:
        job_id = str(uuid.uuid4())
        name = submit.accepted_name(filename)
        stored = {**asdict(wishes), "filename": name}
        lifetime = parts.settings.upload_link_ttl + SLACK
        try:
            async with parts.database.write() as session:
                key = keys.upload_key(job_id, name)
                await intents.note(session, key, job_id, lifetime, owner=owner, wishes=stored)
                if request is not None:
                    await idempotency.remember(session, owner, request, job_id, {"job_id": job_id})
        except IntegrityError:
            # the same request, twice at once: the other was faster
            job_id = (await submit.recalled(parts, owner, request) if request else None) or job_id
    return await _link(parts, job_id, keys.upload_key(job_id, submit.display_name(filename)))


async def _link(parts: Parts, job_id: str, key: str) -> Link:
    ttl = parts.settings.upload_link_ttl
    expires = datetime.now(UTC) + timedelta(seconds=ttl)
    url = await parts.storage.upload_link(key, ttl)
    if url is None:
        until = int(expires.timestamp())
        signature = parts.secret.sign(PURPOSE, f"{job_id} {until}")
        url = f"/api/v1/uploads/{job_id}?expires={until}&signature={signature}"
    return Link(job_id, url, expires)


async def intake_of(parts: Parts, job_id: str, expires: int, signature: str) -> UploadIntent:
    """What a signed link of our own allows to be written. Raises UnauthorizedError, JobNotFoundError."""
    if time.time() > expires or not parts.secret.verify(PURPOSE, f"{job_id} {expires}", signature):
        raise UnauthorizedError("The link is not valid, or not any more. Ask for a new one with POST /api/v1/uploads.")
    async with parts.database.read() as session:
        found = await intents.of_link(session, job_id)
    if found is None:
        raise JobNotFoundError("Job not found: {value}", value=job_id[:100])
    return found


async def start(parts: Parts, owner: str, job_id: str) -> Job:
    """Make the job of what was uploaded; harmless twice. Raises NothingUploadedError, FileTooLargeError,
    EmptyFileError, JobNotFoundError, QuotaExceededError."""
    intent = None
    if results.is_job_id(job_id):
        async with parts.database.read() as session:
            intent = await intents.of_link(session, job_id)
    if intent is None or intent.owner != owner:
        return await results.find(parts, job_id, owner)
    size = await _size(parts, intent.key)
    await parts.limiter.submit(owner, size)
    stored = dict(intent.wishes or {})
    name = stored.pop("filename", None)
    new = replace(
        submit.new_job(job_id, owner, _wishes(stored)), original_filename=name, audio_key=intent.key, file_size=size
    )
    try:
        return await submit.create(parts, new, noted=True)
    except (IntegrityError, UploadTimeoutError):
        # somebody else has started it
        return await results.find(parts, job_id, owner)


def _wishes(stored: dict[str, Any]) -> Wishes:
    return Wishes(**{**stored, "priority": Priority(stored["priority"])})


async def _size(parts: Parts, key: str) -> int:
    found = await parts.storage.stat(key)
    if found is None:
        raise NothingUploadedError
    if found.size > parts.settings.max_upload_bytes:
        await parts.storage.delete_prefix(key)
        raise submit.too_large(parts)
    if found.size == 0:
        raise EmptyFileError
    return found.size
