"""Submission by URL: a consumer fetches the recording. One job per owner and request_id."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from core.database import Database
from core.errors import AlreadyExists, InvalidFieldError
from core.outbound import Outbound, Refused
from core.storage.port import checked_key
from internal.services.idempotency import IdempotentRequests
from internal.services.incoming_upload import display_name
from internal.services.jobs import job_not_found
from internal.services.submissions import Submissions, new_job
from internal.services.submit_options import MAX_URL, SubmitOptions
from repositories import jobs
from repositories.idempotency import IdempotentRequest
from repositories.jobs import NewJob
from repositories.models import Job

BUCKET_SCHEME = "minio"
INBOX = "inbox"
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,255}")


@dataclass(frozen=True, slots=True)
class UrlSubmissions:
    """Submission and polling by request_id.

    job_ttl_seconds: time after its end for which a job is found by its request_id; 0: no limit.
    """

    database: Database
    media: Outbound
    idempotent_requests: IdempotentRequests
    submissions: Submissions
    bucket: str
    job_ttl_seconds: int

    async def submit(
        self, owner: str, request_id: str, media_url: str, options: SubmitOptions, request: IdempotentRequest | None
    ) -> tuple[Job, bool]:
        """Return the job of this request_id and whether it is new. Raises InvalidFieldError, QuotaExceededError.

        Callers call `find` first. This method only handles concurrent requests with the same request_id.
        """
        key = self._object_key(owner, media_url)
        await self.submissions.check_quota(owner)
        new = replace(
            new_job(str(uuid.uuid4()), owner, options),
            request_id=request_id,
            media_url=media_url,
            original_filename=name_of(media_url),
            audio_key=key,
        )
        try:
            return await self.idempotent_requests.run_once(owner, request, lambda: self._create(new, request))
        except AlreadyExists:
            earlier = await self.find(owner, request_id)
            if earlier is None:
                raise
            return earlier, False

    async def _create(self, new: NewJob, request: IdempotentRequest | None) -> Job:
        async with self.database.write() as session:
            await jobs.release_request_id(session, new.owner, new.request_id or "", self.job_ttl_seconds)
        job = await self.submissions.commit(new, request, has_intent=False)
        await self.submissions.announce(job)
        return job

    async def find(self, owner: str, request_id: str, *, with_text: bool = False) -> Job | None:
        """Return the job; None if it is unknown or ended more than `job_ttl_seconds` ago."""
        async with self.database.read() as session:
            return await jobs.get_by_request_id(session, owner, request_id, self.job_ttl_seconds, with_text=with_text)

    async def get(self, owner: str, request_id: str) -> Job:
        """Return the job with its text. Raises JobNotFoundError, also from `job_ttl_seconds` after its end."""
        job = await self.find(owner, request_id, with_text=True) if REQUEST_ID.fullmatch(request_id) else None
        if job is None:
            raise job_not_found(request_id)
        return job

    def _object_key(self, owner: str, url: str) -> str | None:
        """Return the object key in a `minio://` URL; None for a URL to be fetched. Raises InvalidFieldError."""
        if len(url) > MAX_URL:
            raise InvalidFieldError("media_url", "`media_url` is longer than {limit} characters.", limit=MAX_URL)
        if not url.startswith(f"{BUCKET_SCHEME}://"):
            try:
                self.media.check(url)
            except Refused as error:
                raise InvalidFieldError("media_url", "`media_url`: {reason}.", reason=str(error)) from None
            return None
        prefix = f"{BUCKET_SCHEME}://{self.bucket}/"
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
    """Return the last segment of the URL's path as a file name; never its query, which may be a secret."""
    try:
        path = unquote(urlsplit(url).path)
    except ValueError:
        path = ""
    return display_name(PurePosixPath(path).name) or "recording"
