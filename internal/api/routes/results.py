"""Status, result and download of a job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from internal.api.dependencies import JobsDep, JobViewsDep, Language, Owner, ResultsDep
from internal.api.routes.responses import Responses, refusals
from internal.api.schemas.jobs import JobStatusBody, ResultBody
from internal.services.job_views import JobView
from internal.services.results import Transcript
from worker.exporters import formats

router = APIRouter(tags=["jobs"])
Corrected = Annotated[bool, Query(description="false: the machine's text, without people's corrections")]
RESULT_PROBLEMS = refusals(400, 404, 422)
FILES: Responses = {
    **RESULT_PROBLEMS,
    200: {"content": {kind.media_type.split(";")[0]: {} for kind in formats().values()}, "description": "The file"},
}


@router.get("/api/v1/status/{job_id}", response_model=JobStatusBody, responses=refusals(404))
@router.get("/api/stt/status/{job_id}", response_model=JobStatusBody, include_in_schema=False)
async def status(job_id: str, jobs: JobsDep, views: JobViewsDep, owner: Owner, language: Language) -> JobView:
    """Read the status of a job. Poll every 2 to 10 seconds."""
    return await views.of(await jobs.find(job_id, owner), language)


@router.get("/api/v1/result/{job_id}", response_model=ResultBody, responses=RESULT_PROBLEMS)
@router.get("/api/stt/result/{job_id}", response_model=ResultBody, include_in_schema=False)
async def result(
    job_id: str, jobs: JobsDep, results: ResultsDep, owner: Owner, partial: bool = False, corrected: Corrected = True
) -> Transcript:
    """Read the transcript; with `partial=true` also the finished part of an unfinished job."""
    return await results.transcript(await jobs.find(job_id, owner), partial=partial, corrected=corrected)


@router.get("/api/v1/download/{job_id}", responses=FILES, response_class=Response)
async def download(
    job_id: str,
    jobs: JobsDep,
    results: ResultsDep,
    owner: Owner,
    kind: str = Query("json", alias="format", description=", ".join(formats())),
    corrected: Corrected = True,
) -> Response:
    """Download the transcript as a file."""
    job = await jobs.find(job_id, owner)
    exporter, data = await results.export(job, kind, corrected=corrected)
    headers = {"Content-Disposition": f'attachment; filename="{job.job_id}_transcription.{exporter.format}"'}
    return Response(data, media_type=exporter.media_type, headers=headers)
