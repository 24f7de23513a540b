"""The OpenAI-compatible way in: the same queue, a caller who waits, and his repeated request that finds its job."""

from __future__ import annotations

from core.domain.job import JobStatus
from core.error_base import error_class
from core.errors import ConflictError, JobCancelledError, SttError
from internal.bootstrap import Application
from internal.outage_retry import OutageRetry
from internal.services import results, submissions
from internal.services.job_watcher import Watcher
from internal.services.submissions import Intake
from internal.services.submit_options import SubmitOptions
from repositories import idempotency, jobs
from repositories.idempotency import IdempotentRequest
from repositories.models import Job

ANY_MODEL = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Names that OpenAI's clients send without thinking: they mean the default model."""
PATIENCE = 60.0
OUTAGE = 60.0
"""Seconds that an outage is waited out before a finished job's answer is given up."""


class JobFailed(SttError):
    """The job ended without a result; code, status and text are the job's own. Asking again would run it all again."""

    def __init__(self, job: Job) -> None:
        self._job = job
        super().__init__()
        kind = error_class(job.error_code) or JobCancelledError
        self.code = job.error_code or kind.code  # type: ignore[misc]
        self.http_status = kind.http_status  # type: ignore[misc]

    def message(self, language: str = "en") -> str:
        return results.failure(self._job, language) or ""


async def accept(
    parts: Application, intake: Intake, owner: str, submit_options: SubmitOptions, fields: dict[str, str]
) -> Job:
    """The job of this very body: a running or completed one of the last day, else a new one."""
    request = submissions.request_of("openai", fields, intake.digest.hexdigest())
    request = IdempotentRequest(f"openai {request.request_hash}", request.request_hash)
    before = await submissions.answered_before(parts, owner, request)
    if before is not None and before.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        await intake.discard()
        return before
    if before is not None:
        async with parts.database.write() as session:
            await idempotency.delete(session, owner, request.key)
    await intake.finish()
    job, new = await submissions.once(
        parts, owner, request, lambda: submissions.accept(parts, intake, owner, submit_options, request)
    )
    if not new:
        await intake.discard()
    return job


async def finished(parts: Application, watcher: Watcher, job: Job) -> Job:
    """Wait until the job has ended. Raises JobFailed, ConflictError where it was deleted meanwhile."""
    async with watcher.watch(job.job_id) as watch:
        while not watch.ended:
            await watch.past(watch.seq, PATIENCE)

    async def look() -> Job | None:
        async with parts.database.read() as session:
            return await jobs.get(session, job.job_id)

    # the job was accepted and has ended: an outage now is waited out for as long as the client waits
    found = await OutageRetry(OUTAGE).run(look)
    if found is None:
        raise ConflictError("The job was deleted.")
    if found.status != JobStatus.COMPLETED:
        raise JobFailed(found)
    return found
