"""OpenAI-compatible routes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Set
from contextlib import aclosing
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.requests import ClientDisconnect

from core.domain.job import AUTO
from core.errors import InvalidFieldError, SttError
from internal.api.dependencies import (
    JobEventsDep,
    Language,
    ModelsDep,
    Owner,
    ResultsDep,
    StreamLimiterDep,
    SubmissionsDep,
    SubmitOptionsDep,
    TranscriptionsDep,
    upload_slot,
)
from internal.api.multipart import read_form
from internal.api.routes.responses import TEXT, Responses, form
from internal.api.routes.streaming import JobStream, encode_event, while_connected
from internal.api.routes.upload_body import UploadBody, check_content_length
from internal.api.schemas import openai as schemas
from internal.services.job_events import KEEP_ALIVE, JobEvent

log = structlog.get_logger(__name__)
CLIENT_CLOSED_REQUEST = 499
"""Status in the request log, as in nginx; no client receives this response."""
router = APIRouter(tags=["openai"])
FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = "timestamp_granularities[]"
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
REFUSALS: Responses = {
    status: {"description": "OpenAI's error", "content": {"application/json": {"schema": ERROR}}}
    for status in (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503)
}
ANSWERS: Responses = {
    **REFUSALS,
    200: {
        "description": "The transcript",
        "content": {kind: {} for kind in ("application/json", "text/plain", "text/vtt", "text/event-stream")},
    },
}
FORM = form(
    ["file", "model"],
    model={**TEXT, "description": "one of GET /v1/models; `whisper-1` is the default model"},
    language=TEXT,
    prompt=TEXT,
    temperature={"type": "number"},
    response_format={**TEXT, "enum": list(FORMATS)},
    stream={"type": "boolean"},
    **{GRANULARITIES: {"type": "array", "items": {**TEXT, "enum": ["segment", "word"]}}},
)


ANY_MODEL = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Names that OpenAI's clients send by default; they select the default model."""


@router.post("/v1/audio/transcriptions", openapi_extra=FORM, responses=ANSWERS, response_class=Response)
async def transcribe(
    request: Request,
    submissions: SubmissionsDep,
    submit_options: SubmitOptionsDep,
    transcriptions: TranscriptionsDep,
    results: ResultsDep,
    job_events: JobEventsDep,
    stream_limiter: StreamLimiterDep,
    owner: Owner,
    language: Language,
) -> Response:
    """Transcribe a recording and wait for the result. After a disconnect, the same request finds its job again."""
    stream_slot = stream_limiter.acquire(owner)
    streaming = False
    try:
        await check_content_length(request, submissions.max_upload_bytes)
        body = UploadBody(request)
        upload = submissions.new_upload(fingerprint=True)
        async with upload_slot(request, owner) as slot, body.discarding(upload):
            fields = await read_form(request.headers.get("content-type", ""), slot.pieces(body.pieces()), upload)
            output_format, granularities = response_format(fields), timestamp_granularities(fields)
            options = await submit_options.validate(submit_fields(fields, granularities))
            job = await transcriptions.submit(upload, owner, options, fields)
        if fields.get("stream", "").lower() in ("true", "1"):
            streaming = True

            async def text() -> str:
                return (await results.read(await transcriptions.wait(job))).text

            return JobStream(_deltas(job_events.follow(job.job_id, 0), text, language), stream_slot)
        try:
            job = await while_connected(request, transcriptions.wait(job))
        except ClientDisconnect:
            log.info("client disconnected, the job continues", action="client_gone", job_id=job.job_id)
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        if output_format in ("text", "srt", "vtt"):
            exporter, data = await results.export(job, "txt" if output_format == "text" else output_format)
            return Response(data, media_type=exporter.media_type)
        result = await results.read(job)
        if output_format == "json":
            return JSONResponse(schemas.transcription(result))
        return JSONResponse(schemas.verbose(result, job.options.temperature, granularities))
    finally:
        if not streaming:
            stream_slot.release()


def submit_fields(fields: Mapping[str, str], granularities: Set[str]) -> dict[str, Any]:
    """Translate OpenAI's fields to those of a submit."""
    return {
        **fields,
        "language": fields.get("language") or AUTO,
        "model": "" if fields.get("model") in ANY_MODEL else fields.get("model", ""),
        "words": "word" in granularities,
    }


def response_format(fields: Mapping[str, str]) -> str:
    """Return the requested format, `json` by default. Raises InvalidFieldError."""
    output_format = fields.get("response_format") or "json"
    if output_format not in FORMATS:
        raise InvalidFieldError(
            "response_format",
            "`response_format` {value} is unknown. Use {allowed}.",
            value=repr(output_format[:20]),
            allowed=", ".join(FORMATS),
        )
    return output_format


def timestamp_granularities(fields: Mapping[str, str]) -> set[str]:
    """Return the requested ones of `segment` and `word`, by default `segment`. Raises InvalidFieldError."""
    granularities = set(filter(None, fields.get(GRANULARITIES, "").split(",")))
    if granularities - {"segment", "word"}:
        raise InvalidFieldError("timestamp_granularities", "`timestamp_granularities` must be segment or word.")
    if granularities and (fields.get("response_format") or "json") != "verbose_json":
        raise InvalidFieldError(
            "timestamp_granularities", "`timestamp_granularities` requires response_format=verbose_json."
        )
    return granularities if GRANULARITIES in fields else {"segment"}


async def _deltas(
    job_events: AsyncGenerator[JobEvent], text: Callable[[], Awaitable[str]], language: str
) -> AsyncIterator[bytes]:
    """Yield each segment as soon as it is final, then the whole text."""
    try:
        separator = ""
        async with aclosing(job_events):
            async for event in job_events:
                if event.segment is not None:
                    yield encode_event({"type": "transcript.text.delta", "delta": separator + event.segment.text})
                    separator = " "
                elif event.kind == KEEP_ALIVE:
                    yield KEEPALIVE_COMMENT
        yield encode_event({"type": "transcript.text.done", "text": await text()})
    except SttError as error:
        body = {"message": error.message(language), "type": "server_error", "param": None, "code": error.code}
        yield encode_event({"error": body})
    yield format_sse_event(data_str="[DONE]")


@router.get("/v1/models", responses={status: REFUSALS[status] for status in (401, 403, 429, 500, 503)})
async def models(models: ModelsDep, _: Owner) -> dict[str, Any]:
    """List the models of the live workers."""
    live = await models.live()
    return schemas.models(live.names, live.since)
