"""Operations on an owner's jobs: find, list, cancel, retry, delete."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from core import tracing
from core.database import Database
from core.domain.job import JobStatus
from core.errors import ConflictError, InfrastructureError, InvalidFieldError, JobNotFoundError, RateLimitedError
from core.metrics import JOBS_ENDED, label
from core.storage.port import Storage
from internal.services.limiting import Limiter
from internal.services.publishing import Publisher, message_for
from internal.services.retention import remove_objects
from repositories import deletion, failures, jobs, webhooks
from repositories.models import Job

log = structlog.get_logger(__name__)
UNDO_SECONDS = 600.0
"""Seconds for which a deletion with `undo` can be undone."""
RETRIABLE = (JobStatus.FAILED, JobStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of jobs. next_cursor: None on the last page."""

    jobs: list[Job]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Jobs:
    """Operations on jobs. failure_ttl_seconds: time after which a cancelled job expires; 0: never."""

    database: Database
    storage: Storage
    publisher: Publisher
    limiter: Limiter
    failure_ttl_seconds: int

    async def find(self, job_id: str, owner: str) -> Job:
        """Return the owner's job. Raises JobNotFoundError for an unknown or malformed id, or another owner's job."""
        if is_job_id(job_id):
            async with self.database.read() as session:
                job = await jobs.get(session, job_id, owner)
            if job is not None:
                return job
        raise job_not_found(job_id)

    async def list_page(
        self,
        owner: str,
        limit: int,
        *,
        status: JobStatus | None,
        language: str | None,
        name: str | None,
        cursor: str | None,
    ) -> JobPage:
        """Return at most `limit` jobs, newest first. Raises InvalidFieldError for a malformed cursor.

        name: part of the recording's file name, in any case. With it a page may have fewer jobs, or none, although
        more follow.
        """
        page = jobs.Page(limit, status, language, decode_cursor(cursor) if cursor else None, name)
        async with self.database.read() as session:
            rows = await jobs.list_page(session, owner, page)
            last = (rows[limit - 1].created_at, rows[limit - 1].job_id) if len(rows) > limit else None
            if last is None and name is not None:
                last = await jobs.end_of_search(session, owner, page)
        return JobPage(rows[:limit], encode_cursor(*last) if last else None)

    async def cancel(self, job_id: str, owner: str) -> Job:
        """Cancel the job. Running chunks stop soon; finished chunks stay readable.

        Raises JobNotFoundError, ConflictError.
        """
        job = await self.find(job_id, owner)
        async with self.database.write() as session:
            if not await failures.cancel_job(session, job.job_id, owner, self.failure_ttl_seconds):
                raise ConflictError("The job has ended ({status}); there is nothing to cancel.", status=str(job.status))
            cancelled = await jobs.get(session, job.job_id)
        tracing.record_job(job.job_id, job.created_at, "CANCELLED")
        JOBS_ENDED.labels("CANCELLED", "", label(job.model), label(job.language)).inc()
        log.info("job cancelled", action="job_cancelled", job_id=job.job_id)
        return cancelled or job

    async def retry(self, job_id: str, owner: str) -> Job:
        """Run the unfinished chunks of a FAILED or CANCELLED job again.

        Counts toward the quotas like a new job; an operator's replay of a dead letter does not.
        Raises JobNotFoundError, ConflictError, QuotaExceededError.
        """
        job = await self.find(job_id, owner)
        async with self.database.write() as session:
            if job.status in RETRIABLE:
                await self.limiter.enforce_quota(session, owner, seconds=job.audio_duration_seconds or 0.0)
            wake_ups = await failures.retry_job(session, job.job_id, owner)
            if wake_ups is None:
                raise ConflictError(
                    "Only a FAILED or CANCELLED job can be retried; this one is {status}.", status=str(job.status)
                )
            reopened = await jobs.get(session, job.job_id)
        log.info("job reopened", action="job_retried", job_id=job.job_id, rows=len(wake_ups))
        if reopened is not None:
            await self.publisher.publish([message_for(reopened, row) for row in wake_ups])
        return reopened or job

    async def redeliver_webhook(self, job_id: str, owner: str) -> Job:
        """Schedule another delivery of the job's webhook. Raises JobNotFoundError, ConflictError, RateLimitedError."""
        job = await self.find(job_id, owner)
        async with self.database.write() as session:
            wait = await webhooks.resend(session, job.job_id)
        if wait is None:
            raise ConflictError("The job has no callback_url, or has not ended yet: there is nothing to deliver.")
        if wait:
            raise RateLimitedError(
                "The webhook is being delivered, or its redelivery was requested less than a minute ago.",
                retry_after=wait,
            )
        return job

    async def delete(self, job_id: str, owner: str, *, undo: bool = False) -> None:
        """Hide the job at once, even while it runs, and remove its objects. Raises JobNotFoundError.

        undo: cancel an unfinished job, and keep the objects for UNDO_SECONDS, in which `restore` shows the job again.
        If storage is down, `Retention.purge_deleted_jobs` removes the objects a day later.
        """
        job = await self.find(job_id, owner)
        async with self.database.write() as session:
            if undo:
                await failures.cancel_job(session, job.job_id, owner, self.failure_ttl_seconds)
            if not await deletion.mark_deleted(session, job.job_id, owner):
                raise job_not_found(job_id)
            if undo:
                await deletion.keep_objects(session, job.job_id, UNDO_SECONDS)
        if not undo:
            await self._remove_objects(job)
        log.info("job deleted", action="job_deleted", job_id=job.job_id, undo=undo)

    async def restore(self, job_id: str, owner: str) -> Job:
        """Undo a deletion with `undo`. Idempotent. Raises JobNotFoundError; ConflictError if it is too late."""
        if not is_job_id(job_id):
            raise job_not_found(job_id)
        async with self.database.write() as session:
            job = await jobs.get(session, job_id, owner)
            if job is not None:
                return job
            restored = await deletion.restore(session, job_id, owner)
        if restored is None:
            raise job_not_found(job_id)
        if not restored:
            raise ConflictError("The job was deleted for good: only a deletion with `undo` can be undone, for a while.")
        log.info("job restored", action="job_restored", job_id=job_id)
        return await self.find(job_id, owner)

    async def _remove_objects(self, job: Job) -> None:
        try:
            await remove_objects(self.storage, job.job_id)
        except InfrastructureError as error:
            log.warning("objects left to the scheduler", action="delete_delayed", job_id=job.job_id, code=error.code)


def job_not_found(identifier: str) -> JobNotFoundError:
    """Return the error for an unknown job. identifier: the job_id or request_id that the client sent."""
    return JobNotFoundError("Job not found: {value}", value=identifier[:255])


def is_job_id(text: str) -> bool:
    """Return whether the text is a UUID in canonical lower-case form, which both databases compare alike."""
    return len(text) == 36 and all(
        character == "-" if position in (8, 13, 18, 23) else character in "0123456789abcdef"
        for position, character in enumerate(text)
    )


def encode_cursor(created_at: datetime, job_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {job_id}".encode()).decode()


def decode_cursor(text: str) -> tuple[datetime, str]:
    """Return creation time and id of the last job on the previous page. Raises InvalidFieldError."""
    try:
        at, job_id = base64.b64decode(text.encode(), b"-_", validate=True).decode().split(" ")
        before = datetime.fromisoformat(at)
        if before.tzinfo is None or not is_job_id(job_id):
            raise ValueError(text)
        return before.astimezone(UTC), job_id
    except (ValueError, UnicodeError, OverflowError):
        raise InvalidFieldError(
            "cursor", "`cursor` is not valid. Use the `next_cursor` of the previous page."
        ) from None
