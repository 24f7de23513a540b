"""Server-sent events of a job, resumed by `Last-Event-ID`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT

from core.domain.job import JobStatus
from internal.api.dependencies import JobEventsDep, JobsDep, JobViewsDep, Language, Owner, StreamLimiterDep
from internal.api.routes.responses import Responses, refusals
from internal.api.routes.streaming import JobStream, encode_event
from internal.api.schemas.jobs import JobStatusBody, SegmentBody
from internal.services.job_events import KEEP_ALIVE, JobEvent
from internal.services.job_views import JobViews

router = APIRouter(tags=["jobs"])
STREAM: Responses = {
    **refusals(404),
    200: {"content": {"text/event-stream": {}}, "description": "The events until the job ends"},
    204: {"description": "The job has ended and the client has received all its events"},
}
NUMBER = re.compile(r"[0-9]{1,15}")
"""A valid `Last-Event-ID`; any other value starts from the beginning."""
STATE_FIELDS = {"status", "progress", "chunks_completed", "chunks_total", "estimated_time_seconds"}
ERROR_FIELDS = {"error_code", "error_message"}


@router.get("/api/v1/jobs/{job_id}/events", responses=STREAM, response_class=StreamingResponse)
async def events(
    job_id: str,
    jobs: JobsDep,
    job_events: JobEventsDep,
    views: JobViewsDep,
    stream_limiter: StreamLimiterDep,
    owner: Owner,
    language: Language,
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Stream `progress` and `segment` events, and finally one of `completed`, `failed` or `cancelled`."""
    job = await jobs.find(job_id, owner)
    last = int(last_event_id) if NUMBER.fullmatch(last_event_id) else 0
    if JobStatus(job.status).terminal and job.event_seq <= last:
        # a browser's EventSource reconnects whenever a stream ends; 204 makes it stop
        return Response(status_code=204)
    slot = stream_limiter.acquire(owner)
    stream = _encode(job_events.follow(job.job_id, last), views, language)
    return JobStream(stream, slot, headers={"X-Accel-Buffering": "no"})


async def _encode(job_events: AsyncGenerator[JobEvent], views: JobViews, language: str) -> AsyncIterator[bytes]:
    async with aclosing(job_events):
        async for event in job_events:
            if event.kind == KEEP_ALIVE:
                yield KEEPALIVE_COMMENT
                continue
            if language not in event.encoded:
                event.encoded[language] = encode_event(await _data(event, views, language), event.kind, event.number)
            yield event.encoded[language]


async def _data(event: JobEvent, views: JobViews, language: str) -> dict[str, Any]:
    if event.segment is not None:
        return SegmentBody.model_validate(event.segment).model_dump(exclude_none=True)
    if event.job is None:
        return {"status": JobStatus.CANCELLED}
    state = JobStatusBody.model_validate(await views.of(event.job, language))
    return state.model_dump(include=STATE_FIELDS if event.job.error_code is None else STATE_FIELDS | ERROR_FIELDS)
