"""What a person does to a job: cancel, retry, delete; and what time does to it: expiry."""

from __future__ import annotations

import structlog

from core.domain import keys
from core.domain.job import JobStatus
from core.errors import ConflictError, InfrastructureError, JobNotFoundError, RateLimitedError
from internal.bootstrap import Parts
from internal.services import publishing, results
from internal.services.isolation import each
from repositories import deletion, failures, intents, jobs, parking, webhooks
from repositories.models import Job

RETRIABLE = (JobStatus.FAILED, JobStatus.CANCELLED)
log = structlog.get_logger(__name__)
COLLECT, EXPIRE, FORGET = "collect", "expire", "forget"


async def cancel(parts: Parts, job_id: str, owner: str) -> Job:
    """Takes effect within one chunk; finished chunks stay readable. Raises JobNotFoundError, ConflictError."""
    job = await results.find(parts, job_id, owner)
    async with parts.database.write() as session:
        if not await failures.cancel_job(session, job.job_id, owner, parts.settings.failure_ttl_seconds):
            raise ConflictError("The job has ended ({status}); there is nothing to cancel.", status=str(job.status))
        changed = await jobs.get(session, job.job_id)
    log.info("job cancelled", action="job_cancelled", job_id=job.job_id)
    return changed or job


async def retry(parts: Parts, job_id: str, owner: str) -> Job:
    """Run again what is missing of a FAILED or CANCELLED job.

    Raises JobNotFoundError, ConflictError; QuotaExceededError, as for a new job. An operator's replay of a dead letter
    is not counted against its owner.
    """
    job = await results.find(parts, job_id, owner)
    async with parts.database.write() as session:
        if job.status in RETRIABLE:
            # the job is no part of what is counted: it has ended
            await parts.limiter.admit(session, owner, seconds=job.audio_duration_seconds or 0.0)
        released = await failures.retry_job(session, job.job_id, owner)
        if released is None:
            raise ConflictError(
                "Only a FAILED or CANCELLED job can be retried; this one is {status}.", status=str(job.status)
            )
        changed = await jobs.get(session, job.job_id)
    log.info("job reopened", action="job_retried", job_id=job.job_id, rows=len(released))
    if changed is not None:
        await parts.publisher.publish([publishing.message_for(changed, row) for row in released])
    return changed or job


async def deliver_again(parts: Parts, job_id: str, owner: str) -> Job:
    """Send the job's webhook once more. Raises JobNotFoundError, ConflictError, RateLimitedError."""
    job = await results.find(parts, job_id, owner)
    async with parts.database.write() as session:
        wait = await webhooks.resend(session, job.job_id)
    if wait is None:
        raise ConflictError("The job has no callback_url, or has not ended yet: there is nothing to deliver.")
    if wait:
        raise RateLimitedError("The webhook is being delivered, or was asked for a moment ago.", retry_after=wait)
    return job


async def delete(parts: Parts, job_id: str, owner: str) -> None:
    """Gone for everybody at once, also while it runs; its objects too. Raises JobNotFoundError.

    Where storage is down the second pass, a day later, removes them.
    """
    job = await results.find(parts, job_id, owner)
    async with parts.database.write() as session:
        if not await deletion.mark_deleted(session, job.job_id, owner):
            raise JobNotFoundError("Job not found: {value}", value=job_id[:100])
    try:
        await remove_objects(parts, job.job_id)
    except InfrastructureError as error:
        log.warning("objects left to the second pass", action="delete_delayed", job_id=job.job_id, code=error.code)
    log.info("job deleted", action="job_deleted", job_id=job.job_id)


async def remove_objects(parts: Parts, job_id: str) -> None:
    for prefix in keys.job_prefixes(job_id):
        await parts.storage.delete_prefix(prefix)


async def collect(parts: Parts, key: str) -> None:
    """Remove an object that was noted as on its way out (or never became anything), then the note."""
    await parts.storage.delete_prefix(key)
    async with parts.database.write() as session:
        await intents.delete(session, key)


async def collect_intents(parts: Parts) -> None:
    """Remove what uploads that never became jobs, and steps that died, left behind."""

    async def remove(key: str) -> None:
        if await collect_expired(parts, key):
            log.info("abandoned object removed", action="intent_collected", key=key)

    async with parts.database.read() as session:
        expired = await intents.list_expired(session, without=await parking.list_parked(session, COLLECT))
    await each(parts, COLLECT, [intent.key for intent in expired], remove)


async def collect_expired(parts: Parts, key: str) -> bool:
    """Remove the object of an expired note, unless a job was made of it; whether the object was removed."""
    async with parts.database.write() as session:
        if not await intents.lock_expired(session, key):
            return False
        if await jobs.references_object(session, key):
            await intents.delete(session, key)
            return False
    await collect(parts, key)
    return True


async def expire(parts: Parts) -> None:
    """Hide what expired and remove its objects; the second pass, a day later, removes what is left of it."""
    async with parts.database.write() as session:
        expired = await deletion.mark_expired(session)

    async def remove(job_id: str) -> None:
        log.info("job expired", action="job_expired", job_id=job_id)
        await remove_objects(parts, job_id)

    await each(parts, EXPIRE, expired, remove)


async def forget_deleted(parts: Parts) -> None:
    """Second pass over deleted and expired jobs: objects that were written late, and the rows."""

    async def remove(job_id: str) -> None:
        await remove_objects(parts, job_id)
        async with parts.database.write() as session:
            await deletion.purge(session, job_id)

    async with parts.database.read() as session:
        hidden = await deletion.list_purgeable(session, without=await parking.list_parked(session, FORGET))
    await each(parts, FORGET, hidden, remove)
