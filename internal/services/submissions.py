"""Submission of recordings: the bytes are stored, one transaction creates the job, one wake-up is published."""

from __future__ import annotations

from dataclasses import dataclass, replace

import structlog

from core import tracing
from core.database import Database
from core.errors import AlreadyExists, InternalError, LinkUsedError, QuotaExceededError, UploadTimeoutError
from core.storage.port import Storage
from internal.services.idempotency import IdempotentRequests
from internal.services.incoming_upload import IncomingUpload
from internal.services.limiting import Limiter
from internal.services.publishing import Publisher, message_for
from internal.services.submit_options import SubmitOptions
from repositories import idempotency, intents, jobs
from repositories.claims import WakeUp
from repositories.idempotency import IdempotentRequest
from repositories.jobs import NewJob
from repositories.models import Job

log = structlog.get_logger(__name__)
ROLLED_BACK = (AlreadyExists, InternalError, LinkUsedError, QuotaExceededError, UploadTimeoutError)
"""Errors after which the creating transaction was certainly rolled back."""


@dataclass(frozen=True, slots=True)
class Submissions:
    """Creation of jobs, for every way to submit."""

    database: Database
    storage: Storage
    publisher: Publisher
    limiter: Limiter
    idempotent_requests: IdempotentRequests
    max_upload_bytes: int

    def new_upload(self, *, fingerprint: bool = False) -> IncomingUpload:
        """Return a new upload. fingerprint: compute the file's SHA-256, to recognise a repeated request."""
        return IncomingUpload(self.database, self.storage, self.max_upload_bytes, fingerprint=fingerprint)

    async def check_quota(self, owner: str, size: int = 0) -> None:
        """Check the quotas before the upload; `commit` checks them again. Raises QuotaExceededError."""
        await self.limiter.check_quota(owner, size)

    async def submit_upload(
        self, upload: IncomingUpload, owner: str, options: SubmitOptions, request: IdempotentRequest | None = None
    ) -> Job:
        """Create the upload's job, or return the job of the same request and discard the upload.

        Two concurrent requests with the same key both upload; the first insert wins.
        """

        async def create() -> Job:
            await upload.finish()
            return await self.create_from_upload(upload, owner, options, request)

        job, new = await self.idempotent_requests.run_once(owner, request, create)
        if not new:
            await upload.discard()
        return job

    async def create_from_upload(
        self, upload: IncomingUpload, owner: str, options: SubmitOptions, request: IdempotentRequest | None = None
    ) -> Job:
        """Commit the job of a finished upload, then publish its Prepare. Raises as `commit` does."""
        new = new_job(upload.job_id, owner, options)
        new = replace(new, original_filename=upload.filename, audio_key=upload.key, file_size=upload.size)
        upload.hand_over()
        try:
            job = await self.commit(new, request, has_intent=True)
        except ROLLED_BACK:
            upload.take_back()
            raise
        await self.announce(job)
        return job

    async def commit(
        self, new: NewJob, request: IdempotentRequest | None, *, has_intent: bool, link: str | None = None
    ) -> Job:
        """Insert the job and its idempotency key.

        has_intent: the job's object has an intent, which is deleted in the same transaction. link: object key of the
        upload link to use up.

        Raises AlreadyExists, LinkUsedError, QuotaExceededError, DatabaseUnavailable; UploadTimeoutError if the intent
        has expired.
        """
        async with self.database.write() as session:
            if link is not None and not await intents.consume_link(session, link):
                raise LinkUsedError
            if has_intent and not await intents.fulfil(session, new.audio_key or ""):
                raise UploadTimeoutError("The upload took too long. Send it again.")
            await self.limiter.enforce_quota(session, new.owner, new.file_size)
            job = await jobs.create(session, new)
            if request is not None:
                await idempotency.store(session, new.owner, request, job.job_id, {"job_id": job.job_id})
        return job

    async def announce(self, job: Job) -> None:
        """Publish the first step of a committed job. Raises only CancelledError."""
        with tracing.submitted(job.job_id):
            log.info("job accepted", action="job_accepted", job_id=job.job_id, mb=job.file_size_mb, model=job.model)
            await self.publisher.publish([message_for(job, WakeUp(job.job_id, None, 0))])


def new_job(job_id: str, owner: str, options: SubmitOptions) -> NewJob:
    """Return a job with the given options and no recording yet."""
    return NewJob(
        job_id=job_id,
        owner=owner,
        language=options.language,
        model=options.model,
        priority=options.priority,
        options=options.options,
        original_filename=None,
        audio_key=None,
        file_size=0,
        callback_url=options.callback_url,
        client_metadata=options.metadata,
        asked_model=options.asked_model,
    )
