"""Status, result, download."""

from __future__ import annotations

from fastapi import APIRouter, Query, Response

from core.domain.job import JobStatus
from core.domain.result import ResultSegment
from internal.api.dependencies import ApplicationOf, EstimatorOf, Language, Owner
from internal.api.routes.responses import Responses, refusals
from internal.api.schemas.jobs import ResultBody, SegmentBody, Status
from internal.services import results
from internal.services.estimates import Estimator
from repositories.models import Job
from worker.exporters import formats
from worker.result import confidence

router = APIRouter(tags=["jobs"])
PROBLEMS = refusals(404)
MORE_PROBLEMS = refusals(400, 404, 422)


@router.get("/api/v1/status/{job_id}", responses=PROBLEMS)
@router.get("/api/stt/status/{job_id}", include_in_schema=False)
async def status(job_id: str, parts: ApplicationOf, owner: Owner, estimator: EstimatorOf, language: Language) -> Status:
    """Where a job stands. Poll every 2 to 10 seconds."""
    return await status_of(await results.find(parts, job_id, owner), estimator, language)


async def status_of(job: Job, estimator: Estimator, language: str) -> Status:
    return Status(
        job_id=job.job_id,
        status=job.status,
        progress=progress(job),
        chunks_completed=job.chunks_completed,
        chunks_total=job.chunks_total,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        error_code=job.error_code,
        error_message=results.failure(job, language) if job.error_code else None,
        estimated_time_seconds=await estimator.seconds(job),
    )


def progress(job: Job) -> float:
    """Per cent, one decimal; 100 only once the job is COMPLETED."""
    if job.status == JobStatus.COMPLETED:
        return 100.0
    if not job.chunks_total:
        return 0.0
    return min(round(100 * job.chunks_completed / job.chunks_total, 1), 99.9)


@router.get("/api/v1/result/{job_id}", responses=MORE_PROBLEMS)
@router.get("/api/stt/result/{job_id}", include_in_schema=False)
async def result(job_id: str, parts: ApplicationOf, owner: Owner, partial: bool = False) -> ResultBody:
    """The transcript; with `partial=true` also the text so far of a job that is not finished."""
    job = await results.find(parts, job_id, owner)
    if partial and job.status != JobStatus.COMPLETED:
        return _body(job, await results.so_far(parts, job))
    stored = await results.stored(parts, job)
    return _body(job, list(stored.segments), text=stored.text)


def _body(job: Job, segments: list[ResultSegment], text: str | None = None) -> ResultBody:
    whole = " ".join(segment.text for segment in segments) if text is None else text
    return ResultBody(
        job_id=job.job_id,
        status=job.status,
        text=whole,
        word_count=len(whole.split()),
        duration_seconds=round(job.audio_duration_seconds or 0.0, 3),
        language=job.detected_language or job.language,
        confidence=confidence(segments) if job.confidence is None else job.confidence,
        model=job.model,
        segments=[segment_body(segment) for segment in segments],
        minio_result_path=job.minio_result_path,
        completed_at=job.completed_at,
        processing_time=job.processing_seconds or 0.0,
        download_url=f"/api/v1/download/{job.job_id}",
        progress=progress(job),
    )


def segment_body(segment: ResultSegment) -> SegmentBody:
    words = [{"word": w.word, "start": w.start, "end": w.end, "probability": w.probability} for w in segment.words]
    return SegmentBody(
        id=segment.id,
        start=segment.start,
        end=segment.end,
        text=segment.text,
        confidence=segment.confidence,
        words=words or None,
    )


FILES: Responses = {
    **MORE_PROBLEMS,
    200: {"content": {kind.media_type.split(";")[0]: {} for kind in formats().values()}, "description": "The file"},
}


@router.get("/api/v1/download/{job_id}", responses=FILES, response_class=Response)
async def download(
    job_id: str,
    parts: ApplicationOf,
    owner: Owner,
    kind: str = Query("json", alias="format", description=", ".join(formats())),
) -> Response:
    """The transcript as a file."""
    job = await results.find(parts, job_id, owner)
    exporter, data = await results.exported(parts, job, kind)
    name = f"{job.job_id}_transcription.{exporter.format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=exporter.media_type, headers=headers)
