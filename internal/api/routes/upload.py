"""Upload: the body is read as it arrives, never held. What is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import structlog
from fastapi import APIRouter, Request
from sqlalchemy.exc import IntegrityError
from starlette.requests import ClientDisconnect

from core.errors import FileTooLargeError, MalformedUploadError
from internal.api.dependencies import EstimatorOf, Owner, PartsOf
from internal.api.multipart import read_form
from internal.api.schemas.jobs import Accepted, Problem
from internal.bootstrap import Parts
from internal.services import submit
from repositories.idempotency import Remembered
from repositories.models import Job

log = structlog.get_logger(__name__)
router = APIRouter(tags=["upload"])
FORM_SLACK = 64 * 1024
"""Bytes that a form may have besides its file."""
DRAIN_BYTES, DRAIN_SECONDS = 32 * 1024 * 1024, 5.0
"""How much of a refused body is still read: a client that is writing sees the answer instead of a reset."""
_TEXT: dict[str, Any] = {"type": "string"}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "language": {**_TEXT, "description": "`en`, `vi` or `auto`"},
                        "model": {**_TEXT, "description": "one that GET /health lists"},
                        "priority": {**_TEXT, "enum": ["high", "normal", "low"]},
                    },
                }
            }
        },
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (400, 408, 413, 422, 503)}


@router.post("/api/v1/upload", response_model_exclude_none=False, openapi_extra=FORM, responses=REFUSALS)
@router.post("/api/stt/upload", include_in_schema=False)
@router.post("/api/transcribe", include_in_schema=False)
async def upload(request: Request, parts: PartsOf, owner: Owner, estimator: EstimatorOf) -> Accepted:
    """Send a recording; answers at once with the `job_id` to come back with."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > parts.settings.max_upload_bytes + FORM_SLACK:
        await _Body(request).drain()
        raise FileTooLargeError(submit.too_large(parts))
    body = _Body(request)
    intake = submit.Intake(parts, fingerprint="idempotency-key" in request.headers)
    try:
        job, warning = await _receive(request, body, parts, owner, intake)
    except ClientDisconnect:
        await asyncio.shield(intake.discard())
        log.info("client hung up during the upload", action="upload_aborted", bytes=intake.size)
        raise MalformedUploadError("The upload was not finished. Send it again.") from None
    except BaseException:
        await asyncio.shield(intake.discard())
        await body.drain()
        raise
    return Accepted(
        job_id=job.job_id,
        status=job.status,
        estimated_time_seconds=await estimator.seconds(job),
        warning=warning,
    )


async def _receive(
    request: Request, body: _Body, parts: Parts, owner: str, intake: submit.Intake
) -> tuple[Any, str | None]:
    fields = await read_form(request.headers.get("content-type", ""), body.pieces(), intake)
    wishes = await submit.check(parts, fields)
    key = request.headers.get("idempotency-key")
    if key is None:
        await intake.finish()
        return await submit.accept(parts, intake, owner, wishes), wishes.warning
    return await _once(parts, owner, intake, wishes, submit.request_of(key, fields, intake)), wishes.warning


async def _once(parts: Parts, owner: str, intake: submit.Intake, wishes: submit.Wishes, request: Remembered) -> Job:
    """Two at once both stream; one insert wins, the loser removes its object and answers like the winner."""
    before = await submit.answered_before(parts, owner, request)
    if before is None:
        await intake.finish()
        try:
            return await submit.accept(parts, intake, owner, wishes, request)
        except IntegrityError:
            before = await submit.answered_before(parts, owner, request)
            if before is None:
                raise
    await intake.discard()
    return before


class _Body:
    """A request's body that knows whether all of it has been read."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        async for data in self._request.stream():
            yield data
        self._ended = True

    async def drain(self) -> None:
        """Read on for a moment. The stream may be half read, so the rest is taken from the connection itself."""
        left = DRAIN_BYTES
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and not self._ended:
                    message = await self._request.receive()
                    left -= len(message.get("body", b""))
                    self._ended = message["type"] != "http.request" or not message.get("more_body")
