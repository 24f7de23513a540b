"""Upload by link: the bytes go straight to object storage, then the job is started."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from core.errors import ConflictError, MalformedUploadError
from internal.api.dependencies import ApplicationOf, EstimatorOf, Language, Owner, slot_for
from internal.api.routes.responses import refusals
from internal.api.routes.results import status_of
from internal.api.schemas.jobs import Status
from internal.api.schemas.submit import LinkBody, LinkWanted
from internal.bootstrap import Application
from internal.services import submissions, upload_links
from internal.services.authentication import LOCAL
from internal.services.submit_options import check
from repositories.models import UploadIntent

router = APIRouter(tags=["upload"])
BYTES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/api/v1/uploads", status_code=201, responses=refusals(400, 413, 422))
async def promise(request: Request, body: LinkWanted, parts: ApplicationOf, owner: Owner) -> LinkBody:
    """A link that takes the recording with PUT; then POST /api/v1/jobs/{job_id}/start."""
    fields = body.model_dump()
    submit_options = await check(parts, fields)
    key = request.headers.get("idempotency-key")
    idempotent_request = None if key is None else submissions.request_of(key, fields)
    link = await upload_links.promise(parts, owner, body.filename, submit_options, idempotent_request)
    url = link.url if "://" in link.url else base_address(request, parts) + link.url
    return LinkBody(job_id=link.job_id, upload_url=url, expires_at=link.expires_at)


def base_address(request: Request, parts: Application) -> str:
    """PUBLIC_URL, or the address that the connection came in on; never the Host header, which the sender writes."""
    if parts.settings.public_url:
        return parts.settings.public_url
    host, port = request.scope.get("server") or (parts.settings.api_host, parts.settings.api_port)
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
    parts: ApplicationOf,
    expires: Annotated[int, Query(ge=0, le=2**53)],
    signature: Annotated[str, Query(max_length=128)],
) -> Response:
    """Where storage is a directory, the link leads here: the signature in it is the permission."""
    intent = await upload_links.intake_of(parts, job_id, expires, signature)
    async with slot_for(request, intent.owner or LOCAL) as slot:
        await _receive(slot.pieces(request.stream()), parts, intent)
    return Response(status_code=200)


async def _receive(pieces: AsyncIterator[bytes], parts: Application, intent: UploadIntent) -> None:
    upload = await parts.storage.open_upload(intent.key)
    size = 0
    try:
        async for data in pieces:
            size += len(data)
            if size > parts.settings.max_upload_bytes:
                raise submissions.too_large(parts)
            await upload.write(data)
        await upload.commit()
        if not await upload_links.is_open(parts, intent.job_id):
            raise ConflictError("The job has already been started; this upload is not part of it.")
    except ClientDisconnect:
        await asyncio.shield(upload.abort())
        raise MalformedUploadError("The upload was not completed. Send it again.") from None
    except BaseException:
        await asyncio.shield(upload.abort())
        raise


@router.post("/api/v1/jobs/{job_id}/start", status_code=202, responses=refusals(400, 404, 409, 413))
async def start(job_id: str, parts: ApplicationOf, owner: Owner, estimator: EstimatorOf, language: Language) -> Status:
    """Begin with what was uploaded; harmless twice. 409 when nothing was."""
    return await status_of(await upload_links.start(parts, owner, job_id), estimator, language)
