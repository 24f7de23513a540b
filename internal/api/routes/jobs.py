"""The jobs themselves: list, look, cancel, retry, delete."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from core.domain.job import JobStatus
from core.domain.json_values import showable
from core.errors import InvalidFieldError
from internal.api.dependencies import ApplicationOf, EstimatorOf, Language, Owner
from internal.api.routes.responses import refusals
from internal.api.routes.results import status_of
from internal.api.schemas.jobs import JobBody, JobList, Status
from internal.services import results
from internal.services.estimates import Estimator
from repositories import jobs
from repositories.models import Job

router = APIRouter(tags=["jobs"])
PROBLEMS = refusals(404, 409)
MOST, USUAL = 200, 50


@router.get("/api/v1/jobs", responses=refusals(422))
async def listed(
    parts: ApplicationOf,
    owner: Owner,
    estimator: EstimatorOf,
    accepted: Language,
    status: JobStatus | None = None,
    language: Annotated[str | None, Query(pattern="^[a-z]{2,8}$")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = USUAL,
    cursor: str | None = None,
) -> JobList:
    """Newest first."""
    page = jobs.Page(limit, status, language, read_cursor(cursor) if cursor else None)
    async with parts.database.read() as session:
        found = await jobs.list_page(session, owner, page)
    shown = found[:limit]
    more = write_cursor(shown[-1]) if len(found) > limit else None
    return JobList(jobs=[await body_of(job, estimator, accepted) for job in shown], next_cursor=more)


def write_cursor(job: Job) -> str:
    return base64.urlsafe_b64encode(f"{job.created_at.isoformat()} {job.job_id}".encode()).decode()


def read_cursor(text: str) -> tuple[datetime, str]:
    """Raises InvalidFieldError."""
    try:
        at, job_id = base64.b64decode(text.encode(), b"-_", validate=True).decode().split(" ")
        before = datetime.fromisoformat(at)
        if before.tzinfo is None or not results.is_job_id(job_id):
            raise ValueError(text)
        return before.astimezone(UTC), job_id
    except (ValueError, UnicodeError, OverflowError):
        raise InvalidFieldError(
            "cursor", "`cursor` is not valid. Use the `next_cursor` of the previous page."
        ) from None


@router.get("/api/v1/jobs/{job_id}", responses=refusals(404))
async def job(job_id: str, parts: ApplicationOf, owner: Owner, estimator: EstimatorOf, language: Language) -> JobBody:
    """A job with everything that was asked for it."""
    return await body_of(await results.find(parts, job_id, owner), estimator, language)


async def body_of(job: Job, estimator: Estimator, language: str) -> JobBody:
    state = await status_of(job, estimator, language)
    return JobBody(
        **state.model_dump(),
        language=job.language,
        detected_language=job.detected_language,
        model=job.model,
        priority=job.priority,
        original_filename=job.original_filename,
        duration_seconds=job.audio_duration_seconds,
        request_id=job.request_id,
        metadata=showable(job.client_metadata),
        retry_count=job.retry_count,
        expires_at=job.expires_at,
    )


@router.post("/api/v1/jobs/{job_id}/webhook", status_code=202, responses=PROBLEMS)
async def webhook(
    job_id: str, parts: ApplicationOf, owner: Owner, estimator: EstimatorOf, language: Language
) -> Status:
    """Deliver the webhook again, under its own id, once a minute; 409 without a callback or before the end."""
    return await status_of(await parts.services.jobs.redeliver_webhook(job_id, owner), estimator, language)


@router.post("/api/v1/jobs/{job_id}/cancel", status_code=202, responses=PROBLEMS)
async def cancel(job_id: str, parts: ApplicationOf, owner: Owner, estimator: EstimatorOf, language: Language) -> Status:
    """Takes effect within one chunk; finished chunks stay readable with `?partial=true`."""
    return await status_of(await parts.services.jobs.cancel(job_id, owner), estimator, language)


@router.post("/api/v1/jobs/{job_id}/retry", status_code=202, responses=PROBLEMS)
async def retry(job_id: str, parts: ApplicationOf, owner: Owner, estimator: EstimatorOf, language: Language) -> Status:
    """Runs again what is missing of a FAILED or CANCELLED job; counts toward the quotas like a new one."""
    return await status_of(await parts.services.jobs.retry(job_id, owner), estimator, language)


@router.delete("/api/v1/jobs/{job_id}", status_code=204, responses=PROBLEMS, response_class=Response)
async def delete(job_id: str, parts: ApplicationOf, owner: Owner) -> Response:
    """With every object, also while it runs."""
    await parts.services.jobs.delete(job_id, owner)
    return Response(status_code=204)
