"""Jobs: list, read, cancel, retry, delete, restore."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from core.domain.job import JobStatus
from internal.api.dependencies import JobsDep, JobViewsDep, Language, Owner
from internal.api.routes.responses import refusals
from internal.api.schemas.jobs import JobBody, JobList, JobStatusBody
from internal.services.job_views import JobView, JobViewPage

router = APIRouter(tags=["jobs"])
PROBLEMS = refusals(404, 409)
MAX_LIMIT, DEFAULT_LIMIT = 200, 50


@router.get("/api/v1/jobs", response_model=JobList, responses=refusals(422))
async def list_page(
    jobs: JobsDep,
    views: JobViewsDep,
    owner: Owner,
    accept_language: Language,
    status: JobStatus | None = None,
    language: Annotated[str | None, Query(pattern="^[a-z]{2,8}$")] = None,
    name: Annotated[str | None, Query(min_length=1, max_length=100, description="part of the file name")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    cursor: str | None = None,
) -> JobViewPage:
    """List jobs, newest first."""
    page = await jobs.list_page(owner, limit, status=status, language=language, name=name, cursor=cursor)
    return await views.page(page, accept_language)


@router.get("/api/v1/jobs/{job_id}", response_model=JobBody, responses=refusals(404))
async def read(job_id: str, jobs: JobsDep, views: JobViewsDep, owner: Owner, language: Language) -> JobView:
    """Read a job with all its options."""
    return await views.with_corrections(await jobs.find(job_id, owner), language)


@router.post("/api/v1/jobs/{job_id}/webhook", status_code=202, response_model=JobStatusBody, responses=PROBLEMS)
async def redeliver_webhook(
    job_id: str, jobs: JobsDep, views: JobViewsDep, owner: Owner, language: Language
) -> JobView:
    """Deliver the webhook again with the same id, once a minute. 409 if the job has no callback or has not ended."""
    return await views.of(await jobs.redeliver_webhook(job_id, owner), language)


@router.post("/api/v1/jobs/{job_id}/cancel", status_code=202, response_model=JobStatusBody, responses=PROBLEMS)
async def cancel(job_id: str, jobs: JobsDep, views: JobViewsDep, owner: Owner, language: Language) -> JobView:
    """Cancel a job. Running chunks stop soon; finished chunks stay readable with `?partial=true`."""
    return await views.of(await jobs.cancel(job_id, owner), language)


@router.post("/api/v1/jobs/{job_id}/retry", status_code=202, response_model=JobStatusBody, responses=PROBLEMS)
async def retry(job_id: str, jobs: JobsDep, views: JobViewsDep, owner: Owner, language: Language) -> JobView:
    """Run the unfinished chunks of a FAILED or CANCELLED job again. Counts toward the quotas like a new job."""
    return await views.of(await jobs.retry(job_id, owner), language)


@router.delete("/api/v1/jobs/{job_id}", status_code=204, responses=PROBLEMS, response_class=Response)
async def delete(job_id: str, jobs: JobsDep, owner: Owner, undo: bool = False) -> Response:
    """Delete a job with its objects, even while it runs. `undo=true` cancels it, and keeps its data for ten minutes."""
    await jobs.delete(job_id, owner, undo=undo)
    return Response(status_code=204)


@router.post("/api/v1/jobs/{job_id}/restore", response_model=JobBody, responses=PROBLEMS)
async def restore(job_id: str, jobs: JobsDep, views: JobViewsDep, owner: Owner, language: Language) -> JobView:
    """Undo the deletion of a job with `undo=true`. Idempotent."""
    return await views.with_corrections(await jobs.restore(job_id, owner), language)
