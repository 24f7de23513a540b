"""Corrections of a transcript, and their announcement to the pages that show it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT

from core.domain.result import ResultSegment
from internal.api.dependencies import Author, CorrectionsDep, JobsDep, Owner, StreamLimiterDep
from internal.api.routes.events import NUMBER
from internal.api.routes.responses import Responses, refusals
from internal.api.routes.streaming import JobStream, encode_event
from internal.api.schemas.corrections import CorrectionRequest
from internal.api.schemas.jobs import SegmentBody
from internal.services.corrections import CorrectionEvent

router = APIRouter(tags=["jobs"])
PROBLEMS = refusals(400, 404, 412, 413, 422, 428)
STREAM: Responses = {
    **refusals(404, 422),
    200: {"content": {"text/event-stream": {}}, "description": "The changes until the job is deleted"},
}
SegmentId = Annotated[int, Path(ge=0, le=10**9)]
IfMatch = Annotated[str | None, Header(description='The version of the segment in quotes, such as "0".')]


@router.put(
    "/api/v1/jobs/{job_id}/segments/{segment_id}",
    response_model=SegmentBody,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def correct(
    job_id: str,
    segment_id: SegmentId,
    body: CorrectionRequest,
    response: Response,
    jobs: JobsDep,
    corrections: CorrectionsDep,
    owner: Owner,
    author: Author,
    if_match: IfMatch = None,
) -> ResultSegment:
    """Correct the text of a segment. The machine's text is kept beside it."""
    job = await jobs.find(job_id, owner)
    segment = await corrections.put(job, segment_id, body.text, if_match, author)
    response.headers["ETag"] = f'"{segment.version}"'
    return segment


@router.delete(
    "/api/v1/jobs/{job_id}/segments/{segment_id}/correction",
    response_model=SegmentBody,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def remove(
    job_id: str,
    segment_id: SegmentId,
    response: Response,
    jobs: JobsDep,
    corrections: CorrectionsDep,
    owner: Owner,
    author: Author,
    if_match: IfMatch = None,
) -> ResultSegment:
    """Restore the machine's text of a segment."""
    job = await jobs.find(job_id, owner)
    segment = await corrections.remove(job, segment_id, if_match, author)
    response.headers["ETag"] = f'"{segment.version}"'
    return segment


@router.get("/api/v1/jobs/{job_id}/corrections/events", responses=STREAM, response_class=StreamingResponse)
async def events(
    job_id: str,
    jobs: JobsDep,
    corrections: CorrectionsDep,
    stream_limiter: StreamLimiterDep,
    owner: Owner,
    after: Annotated[int, Query(ge=0, le=2**53, description="Number of the last change that is known.")] = 0,
    last_event_id: Annotated[str, Header()] = "",
) -> Response:
    """Stream a `correction` event for each change, resumed by `Last-Event-ID`, and `deleted` if the job is deleted."""
    job = await jobs.find(job_id, owner)
    last = int(last_event_id) if NUMBER.fullmatch(last_event_id) else after
    slot = stream_limiter.acquire(owner)
    stream = encode_changes(corrections.follow(job.job_id, last))
    return JobStream(stream, slot, headers={"X-Accel-Buffering": "no"})


async def encode_changes(changes: AsyncGenerator[CorrectionEvent]) -> AsyncIterator[bytes]:
    """Yield the wire format of the changes."""
    async with aclosing(changes):
        async for change in changes:
            if change.correction is not None:
                correction = change.correction
                data = {
                    "id": correction.segment_id,
                    "version": correction.version,
                    "text": correction.text,
                    "author": correction.author,
                    "corrected_at": correction.corrected_at_text,
                }
                yield encode_event(data, "correction", correction.version)
            else:
                yield encode_event({}, "deleted") if change.deleted else KEEPALIVE_COMMENT
