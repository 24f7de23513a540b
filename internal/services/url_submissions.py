"""Submit by URL: the answer comes at once, the consumer resolves and fetches. One job per owner and request_id."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from core.errors import AlreadyExists, InvalidFieldError, JobNotFoundError
from core.outbound import Refused
from core.storage.port import checked_key
from internal.bootstrap import Application
from internal.services import submissions
from internal.services.submit_options import MAX_URL, SubmitOptions
from repositories import jobs
from repositories.idempotency import IdempotentRequest
from repositories.jobs import NewJob
from repositories.models import Job

BUCKET_SCHEME = "minio"
INBOX = "inbox"
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,255}")


async def accept(
    parts: Application,
    owner: str,
    request_id: str,
    media_url: str,
    submit_options: SubmitOptions,
    request: IdempotentRequest | None,
) -> tuple[Job, bool]:
    """The job of this request_id, and whether it is new. Raises InvalidFieldError, QuotaExceededError.

    Callers look with `find` first; here only somebody who was faster is noticed.
    """
    key = source_key(parts, owner, media_url)
    await parts.limiter.submit(owner)
    new = replace(
        submissions.new_job(str(uuid.uuid4()), owner, submit_options),
        request_id=request_id,
        media_url=media_url,
        original_filename=name_of(media_url),
        audio_key=key,
    )
    try:
        return await submissions.once(parts, owner, request, lambda: _create(parts, new, request))
    except AlreadyExists:
        # somebody else with the same request_id was faster
        before = await find(parts, owner, request_id)
        if before is None:
            raise
        return before, False


async def _create(parts: Application, new: NewJob, request: IdempotentRequest | None) -> Job:
    async with parts.database.write() as session:
        await jobs.release_request_id(session, new.owner, new.request_id or "", parts.settings.job_ttl_seconds)
    return await submissions.create(parts, new, request)


async def find(parts: Application, owner: str, request_id: str, *, with_text: bool = False) -> Job | None:
    async with parts.database.read() as session:
        ttl = parts.settings.job_ttl_seconds
        return await jobs.get_by_request_id(session, owner, request_id, ttl, with_text=with_text)


async def get(parts: Application, owner: str, request_id: str) -> Job:
    """With its text. Raises JobNotFoundError, also once JOB_TTL_SECONDS have passed since its end."""
    job = await find(parts, owner, request_id, with_text=True) if REQUEST_ID.fullmatch(request_id) else None
    if job is None:
        raise JobNotFoundError("Job not found: {value}", value=request_id[:255])
    return job


def source_key(parts: Application, owner: str, url: str) -> str | None:
    """The object that a `minio://` address means; None for one that is fetched. Raises InvalidFieldError."""
    if len(url) > MAX_URL:
        raise InvalidFieldError("media_url", "`media_url` is longer than {limit} characters.", limit=MAX_URL)
    if url.startswith(f"{BUCKET_SCHEME}://"):
        return _object(parts, owner, url)
    try:
        parts.media.check(url)
    except Refused as error:
        raise InvalidFieldError("media_url", "`media_url`: {reason}.", reason=str(error)) from None
    return None


def _object(parts: Application, owner: str, url: str) -> str:
    prefix = f"{BUCKET_SCHEME}://{parts.settings.minio_bucket}/"
    key = url.removeprefix(prefix)
    try:
        checked_key(key)
    except ValueError:
        key = ""
    if not url.startswith(prefix) or not key.startswith(f"{INBOX}/{owner}/"):
        raise InvalidFieldError(
            "media_url", "`media_url`: only {allowed} is allowed.", allowed=f"{prefix}{INBOX}/{owner}/…"
        )
    return key


def name_of(url: str) -> str:
    """The last part of the address's path, as a file name; never its query, which may be a secret."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        path = ""
    return submissions.display_name(PurePosixPath(path).name) or "recording"
