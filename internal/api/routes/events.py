"""Server-sent events: progress and finished segments while the job runs, replay by `Last-Event-ID`."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from core.domain.job import JobStatus
from internal.api.dependencies import ApplicationOf, EstimatorOf, Language, Owner, StreamsOf, WatcherOf
from internal.api.routes.responses import Responses, refusals
from internal.api.routes.results import progress, segment_body
from internal.api.routes.streaming import JobStream
from internal.services import results
from internal.services.estimates import Estimator
from internal.services.events import Event, follow
from repositories.models import Job

router = APIRouter(tags=["jobs"])
MEDIA = "text/event-stream"
STREAM: Responses = {
    **refusals(404),
    200: {"content": {MEDIA: {}}, "description": "The events, until the job has ended"},
    204: {"description": "The job has ended and its reader knows"},
}
NUMBER = re.compile(r"[0-9]{1,15}")
"""What can be an event's number; anything else is from the start."""


@router.get("/api/v1/jobs/{job_id}/events", responses=STREAM, response_class=StreamingResponse)
async def events(
    job_id: str,
    parts: ApplicationOf,
    owner: Owner,
    watcher: WatcherOf,
    streams: StreamsOf,
    estimator: EstimatorOf,
    language: Language,
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """`progress`, `segment`, and one of `completed`, `failed`, `cancelled` at the end."""
    job = await results.find(parts, job_id, owner)
    last = int(last_event_id) if NUMBER.fullmatch(last_event_id) else 0
    if JobStatus(job.status).terminal and job.event_seq <= last:
        # a browser's EventSource asks again after every end; this is how it is told to stop
        return Response(status_code=204)
    slot = streams.take(owner)
    lines = _lines(follow(parts, watcher, job.job_id, last), estimator, language)
    return JobStream(lines, slot, headers={"X-Accel-Buffering": "no"})


async def _lines(happening: AsyncGenerator[Event], estimator: Estimator, language: str) -> AsyncIterator[str]:
    async with aclosing(happening):
        async for event in happening:
            yield await _line(event, estimator, language)


async def _line(event: Event, estimator: Estimator, language: str) -> str:
    if event.kind == "quiet":
        return ": still here\n\n"
    if event.segment is not None:
        data: dict[str, Any] = segment_body(event.segment).model_dump(exclude_none=True)
    else:
        data = await _state(event.job, estimator, language) if event.job else {"status": JobStatus.CANCELLED}
    number = "" if event.number is None else f"id: {event.number}\n"
    return f"{number}event: {event.kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _state(job: Job, estimator: Estimator, language: str) -> dict[str, Any]:
    state = {
        "status": job.status,
        "progress": progress(job),
        "chunks_completed": job.chunks_completed,
        "chunks_total": job.chunks_total,
        "estimated_time_seconds": await estimator.seconds(job),
    }
    if job.error_code is not None:
        state |= {"error_code": job.error_code, "error_message": results.failure(job, language)}
    return state
