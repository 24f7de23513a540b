"""Upload links: the client uploads straight to object storage, then starts the job."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from core.config import Settings
from core.errors import MalformedUploadError
from internal.api.dependencies import (
    IdempotencyKey,
    JobViewsDep,
    Language,
    Owner,
    SettingsDep,
    SubmitOptionsDep,
    UploadLinksDep,
    upload_slot,
)
from internal.api.routes.responses import refusals
from internal.api.schemas.jobs import JobStatusBody
from internal.api.schemas.submit import UploadLinkBody, UploadLinkSubmit
from internal.services.authentication import LOCAL_OWNER
from internal.services.idempotency import idempotent_request
from internal.services.job_views import JobView

router = APIRouter(tags=["upload"])
BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/api/v1/uploads", status_code=201, responses=refusals(400, 413, 422))
async def create(
    request: Request,
    body: UploadLinkSubmit,
    links: UploadLinksDep,
    submit_options: SubmitOptionsDep,
    settings: SettingsDep,
    owner: Owner,
    idempotency_key: IdempotencyKey,
) -> UploadLinkBody:
    """Create a link to upload the recording to with PUT. Then start the job: POST /api/v1/jobs/{job_id}/start."""
    fields = body.model_dump()
    options = await submit_options.validate(fields)
    link = await links.create(owner, body.filename, options, idempotent_request(idempotency_key, fields))
    url = link.url if "://" in link.url else base_url(request, settings) + link.url
    return UploadLinkBody(job_id=link.job_id, upload_url=url, expires_at=link.expires_at)


def base_url(request: Request, settings: Settings) -> str:
    """Return PUBLIC_URL, or the address that the client connected to; never the Host header, which the client sets."""
    if settings.public_url:
        return settings.public_url
    host, port = request.scope.get("server") or (settings.api_host, settings.api_port)
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}" if port is None else f"http://{name}:{port}"


@router.put(
    "/api/v1/uploads/{job_id}",
    status_code=200,
    responses=refusals(400, 404, 408, 413, 422),
    response_class=Response,
    openapi_extra=BYTES,
)
async def put(
    job_id: str,
    request: Request,
    links: UploadLinksDep,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=128)],
) -> Response:
    """Receive the bytes of an upload link if the storage is a local folder. The signature authorises the request."""
    intent = await links.open(job_id, expires, signature)
    async with upload_slot(request, intent.owner or LOCAL_OWNER) as slot:
        try:
            await links.store(intent, slot.pieces(request.stream()))
        except ClientDisconnect:
            raise MalformedUploadError("The upload was not completed. Send it again.") from None
    return Response(status_code=200)


@router.post(
    "/api/v1/jobs/{job_id}/start",
    status_code=202,
    response_model=JobStatusBody,
    responses=refusals(400, 404, 409, 413),
)
async def start(job_id: str, links: UploadLinksDep, views: JobViewsDep, owner: Owner, language: Language) -> JobView:
    """Start the job of an uploaded recording. Idempotent. 409 if nothing was uploaded."""
    return await views.of(await links.start(owner, job_id), language)
