"""Cancel, retry, delete."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from internal.api.dependencies import EstimatorOf, Owner, PartsOf
from internal.api.routes.jobs import status_of
from internal.api.schemas.jobs import Problem, Status
from internal.services import lifecycle, results

router = APIRouter(tags=["jobs"])
PROBLEMS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (404, 409, 503)}


@router.get("/api/v1/jobs/{job_id}", responses=PROBLEMS)
async def job(job_id: str, parts: PartsOf, owner: Owner, estimator: EstimatorOf) -> Status:
    """The same as its status."""
    return await status_of(await results.find(parts, job_id, owner), estimator)


@router.post("/api/v1/jobs/{job_id}/cancel", status_code=202, responses=PROBLEMS)
async def cancel(job_id: str, parts: PartsOf, owner: Owner, estimator: EstimatorOf) -> Status:
    """Takes effect within one chunk; finished chunks stay readable with `?partial=true`."""
    return await status_of(await lifecycle.cancel(parts, job_id, owner), estimator)


@router.post("/api/v1/jobs/{job_id}/retry", status_code=202, responses=PROBLEMS)
async def retry(job_id: str, parts: PartsOf, owner: Owner, estimator: EstimatorOf) -> Status:
    """Runs again what is missing of a FAILED or CANCELLED job."""
    return await status_of(await lifecycle.retry(parts, job_id, owner), estimator)


@router.delete("/api/v1/jobs/{job_id}", status_code=204, responses=PROBLEMS, response_class=Response)
async def delete(job_id: str, parts: PartsOf, owner: Owner) -> Response:
    """With every object, also while it runs."""
    await lifecycle.delete(parts, job_id, owner)
    return Response(status_code=204)
