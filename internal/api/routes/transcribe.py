"""Submit a URL and poll (section 2 of the HTTP contract): what polling clients were written against."""

from __future__ import annotations

from fastapi import APIRouter, Request

from core.domain.job import JobStatus
from core.errors import JobCancelledError
from core.texts import translate
from internal.api.dependencies import ApplicationOf, Language, Owner
from internal.api.routes.responses import refusals
from internal.api.schemas.submit import Polled, UrlSubmit
from internal.services import results, submissions, url_submissions
from internal.services.submit_options import check
from repositories.models import Job

router = APIRouter(tags=["transcribe"])
SUBMITTED = "Job submitted successfully"


@router.post("/api/v1/transcribe", status_code=202, response_model_exclude_none=True, responses=refusals(400, 413, 422))
async def by_address(
    request: Request, body: UrlSubmit, parts: ApplicationOf, owner: Owner, language: Language
) -> Polled:
    """Answers at once; the recording is fetched by a worker. The same request_id again is the same job."""
    before = await url_submissions.find(parts, owner, body.request_id, with_text=True)
    if before is not None:
        return polled(before, language)
    fields = body.model_dump()
    submit_options = await check(parts, fields)
    key = request.headers.get("idempotency-key")
    idempotent_request = None if key is None else submissions.request_of(key, fields)
    job, new = await url_submissions.accept(
        parts, owner, body.request_id, body.media_url, submit_options, idempotent_request
    )
    if not new:
        return polled(await url_submissions.get(parts, owner, job.request_id or body.request_id), language)
    return Polled(
        request_id=body.request_id,
        status=JobStatus.PROCESSING,
        message=translate(SUBMITTED, language),
        job_id=job.job_id,
        warning=submit_options.warning and translate(submit_options.warning, language),
    )


@router.get("/api/v1/transcribe/{request_id}", response_model_exclude_none=True, responses=refusals(404))
async def poll(request_id: str, parts: ApplicationOf, owner: Owner, language: Language) -> Polled:
    """Poll every 2 to 10 seconds. 404 once JOB_TTL_SECONDS have passed since the job's end."""
    return polled(await url_submissions.get(parts, owner, request_id), language)


def polled(job: Job, language: str) -> Polled:
    """Numbers are never null once COMPLETED: clients format them."""
    answer = Polled(request_id=job.request_id or "", job_id=job.job_id, status=JobStatus.PROCESSING, message="")
    match job.status:
        case JobStatus.COMPLETED:
            answer = answer.model_copy(update=_completed(job))
        case JobStatus.FAILED | JobStatus.CANCELLED:
            answer = answer.model_copy(update=_failed(job, language))
        case _:
            answer = answer.model_copy(update={"message": "Transcription in progress"})
    return answer.model_copy(update={"message": translate(answer.message, language)})


def _completed(job: Job) -> dict[str, object]:
    return {
        "status": JobStatus.COMPLETED.value,
        "message": "Transcription completed successfully",
        "transcription": job.transcription_text or "",
        "duration": round(job.audio_duration_seconds or 0.0, 3),
        "confidence": job.confidence or 0.0,
        "processing_time": job.processing_seconds or 0.0,
    }


def _failed(job: Job, language: str) -> dict[str, object]:
    return {
        "status": JobStatus.FAILED.value,
        "message": "Transcription failed",
        "error": results.failure(job, language) or "",
        "error_code": job.error_code or JobCancelledError.code,
    }
