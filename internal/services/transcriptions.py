"""Synchronous transcription for OpenAI's clients: a submit that waits for its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.database import Database
from core.domain.job import JobStatus
from core.error_base import error_class
from core.errors import ConflictError, JobCancelledError, SttError
from internal.outage_retry import OutageRetry
from internal.services.idempotency import IdempotentRequests, request_hash
from internal.services.incoming_upload import IncomingUpload
from internal.services.job_views import failure_message
from internal.services.job_watcher import JobWatcher
from internal.services.submissions import Submissions
from internal.services.submit_options import SubmitOptions
from repositories import jobs
from repositories.idempotency import IdempotentRequest
from repositories.models import Job

POLL_TIMEOUT = 60.0
"""Seconds of one wait for a change of the job, repeated until it ends."""
OUTAGE_TIMEOUT = 60.0
"""Seconds that the response of a finished job waits for the database during an outage."""


class JobFailed(SttError):
    """The job ended without a result. Code, status and text are those of the job's failure."""

    def __init__(self, job: Job) -> None:
        self._job = job
        super().__init__()
        error_type = error_class(job.error_code) or JobCancelledError
        self.code = job.error_code or error_type.code  # type: ignore[misc]
        self.http_status = error_type.http_status  # type: ignore[misc]

    def message(self, language: str = "en") -> str:
        return failure_message(self._job, language) or ""


@dataclass(frozen=True, slots=True)
class Transcriptions:
    """Submission and waiting, for clients that expect the text in the response."""

    database: Database
    idempotent_requests: IdempotentRequests
    submissions: Submissions
    watcher: JobWatcher

    async def submit(
        self, upload: IncomingUpload, owner: str, options: SubmitOptions, fields: Mapping[str, str]
    ) -> Job:
        """Return the running or completed job that the same request created within a day, or a new one."""
        body_hash = request_hash(fields, upload.digest.hexdigest())
        request = IdempotentRequest(f"openai {body_hash}", body_hash)
        earlier = await self.idempotent_requests.find_job(owner, request)
        if earlier is not None and earlier.status in (JobStatus.FAILED, JobStatus.CANCELLED):
            await self.idempotent_requests.forget(owner, request)
        elif earlier is not None:
            await upload.discard()
            return earlier
        await upload.finish()
        job, new = await self.idempotent_requests.run_once(
            owner, request, lambda: self.submissions.create_from_upload(upload, owner, options, request)
        )
        if not new:
            await upload.discard()
        return job

    async def wait(self, job: Job) -> Job:
        """Wait until the job has ended. Raises JobFailed; ConflictError if it was deleted meanwhile."""
        async with self.watcher.watch(job.job_id) as watch:
            while not watch.ended:
                await watch.wait_for_change(watch.seq, POLL_TIMEOUT)

        async def load() -> Job | None:
            async with self.database.read() as session:
                return await jobs.get(session, job.job_id)

        # the work is done: rather wait out an outage than fail the request
        ended = await OutageRetry(OUTAGE_TIMEOUT).run(load)
        if ended is None:
            raise ConflictError("The job was deleted.")
        if ended.status != JobStatus.COMPLETED:
            raise JobFailed(ended)
        return ended
