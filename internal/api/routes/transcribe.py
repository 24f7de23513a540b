"""Submission of a recording by URL, and polling of its job."""

from __future__ import annotations

from fastapi import APIRouter

from core.domain.job import JobStatus
from core.texts import translate
from internal.api.dependencies import IdempotencyKey, Language, Owner, SubmitOptionsDep, UrlSubmissionsDep
from internal.api.routes.responses import refusals
from internal.api.schemas.submit import UrlJob, UrlSubmit
from internal.services.idempotency import idempotent_request
from internal.services.job_views import view_of

router = APIRouter(tags=["transcribe"])
SUBMITTED = "Job submitted successfully"


@router.post("/api/v1/transcribe", status_code=202, response_model_exclude_none=True, responses=refusals(400, 413, 422))
async def submit(
    body: UrlSubmit,
    submissions: UrlSubmissionsDep,
    submit_options: SubmitOptionsDep,
    owner: Owner,
    idempotency_key: IdempotencyKey,
    language: Language,
) -> UrlJob:
    """Submit a recording for a worker to fetch. A repeated request_id returns the same job."""
    earlier = await submissions.find(owner, body.request_id, with_text=True)
    if earlier is not None:
        return UrlJob.of(view_of(earlier, language), language)
    fields = body.model_dump()
    options = await submit_options.validate(fields)
    job, new = await submissions.submit(
        owner, body.request_id, body.media_url, options, idempotent_request(idempotency_key, fields)
    )
    if not new:
        job = await submissions.get(owner, job.request_id or body.request_id)
        return UrlJob.of(view_of(job, language), language)
    return UrlJob(
        request_id=body.request_id,
        status=JobStatus.PROCESSING,
        message=translate(SUBMITTED, language),
        job_id=job.job_id,
        warning=options.warning and translate(options.warning, language),
    )


@router.get("/api/v1/transcribe/{request_id}", response_model_exclude_none=True, responses=refusals(404))
async def poll(request_id: str, submissions: UrlSubmissionsDep, owner: Owner, language: Language) -> UrlJob:
    """Read the state of a job by URL. Poll every 2 to 10 seconds. 404 from JOB_TTL_SECONDS after the job's end."""
    return UrlJob.of(view_of(await submissions.get(owner, request_id), language), language)
