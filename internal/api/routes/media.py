"""The recording of a job, for players."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from core.domain.keys import safe_name
from core.domain.media_types import MEDIA_TYPES
from internal.api.dependencies import JobsDep, MediaDep, OptionalOwner, Owner
from internal.api.ranges import is_unchanged, last_modified, requested_range
from internal.api.routes.responses import Responses, refusals
from internal.api.schemas.media import MediaTokenBody, PeaksBody
from internal.services.media import Medium

router = APIRouter(tags=["jobs"])
PATH = "/api/v1/jobs/{job_id}/media"
FILES: Responses = {kind: {} for kind in MEDIA_TYPES}
RECORDING: Responses = {
    **refusals(404, 409, 410, 416, 422),
    200: {"content": FILES, "description": "The recording"},
    206: {"content": FILES, "description": "The requested range of the recording"},
    304: {"description": "The client has this version of the recording"},
}
POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
"""Content-Security-Policy of a recording that is opened as a page: whatever it contains, no script runs."""


@router.post("/api/v1/jobs/{job_id}/media-token", status_code=201, responses=refusals(404, 409, 410))
async def issue_token(job_id: str, jobs: JobsDep, media: MediaDep, owner: Owner) -> MediaTokenBody:
    """Issue a token that authorises reading this job's recording for an hour, so that no address contains a key."""
    job = await jobs.find(job_id, owner)
    medium, token = await media.find(job), media.issue_token(job)
    return MediaTokenBody(
        url=f"/api/v1/jobs/{job.job_id}/media?token={token.text}",
        token=token.text,
        expires_at=token.expires_at,
        content_type=medium.content_type,
        size=medium.info.size,
    )


@router.get(PATH, responses=RECORDING, response_class=StreamingResponse)
@router.head(PATH, include_in_schema=False)
async def read(
    job_id: str,
    request: Request,
    jobs: JobsDep,
    media: MediaDep,
    owner: OptionalOwner,
    token: Annotated[str, Query(max_length=100, description="Authorises the request instead of a key.")] = "",
    download: Annotated[bool, Query(description="Let a browser save the recording instead of playing it.")] = False,
) -> Response:
    """Read the recording as it was submitted, or a range of its bytes."""
    job = await media.authorise(job_id, token) if owner is None else await jobs.find(job_id, owner)
    medium = await media.find(job)
    headers = _headers(medium, download=download)
    if is_unchanged(request.headers, medium):
        return Response(status_code=304, headers=headers)
    wanted = requested_range(request.headers, medium) if request.method == "GET" else None
    size = medium.info.size
    first, last = wanted or (0, size - 1)
    headers["Content-Length"] = str(last + 1 - first)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    if request.method == "HEAD":
        return Response(headers=headers, media_type=medium.content_type)
    status = 200 if wanted is None else 206
    return StreamingResponse(media.read(medium, first, last), status, headers, medium.content_type)


@router.get("/api/v1/jobs/{job_id}/peaks", responses=refusals(404))
async def read_peaks(job_id: str, jobs: JobsDep, media: MediaDep, owner: Owner) -> PeaksBody:
    """Read the loudness of the recording over time, for a strip that shows its silences."""
    job = await jobs.find(job_id, owner)
    stored = await media.peaks(job)
    return PeaksBody(duration_seconds=round(job.audio_duration_seconds or 0.0, 3), **stored)


def _headers(medium: Medium, *, download: bool) -> dict[str, str]:
    kind = "attachment" if download else "inline"
    names = f"filename=\"{safe_name(medium.name)}\"; filename*=UTF-8''{quote(medium.name, safe='', errors='replace')}"
    return {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"{kind}; {names}",
        "Content-Security-Policy": POLICY,
        "ETag": medium.etag,
        "Last-Modified": last_modified(medium),
    }
