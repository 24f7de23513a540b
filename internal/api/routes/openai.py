"""OpenAI-compatible routes: the official `openai` package, unchanged, is the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from core.domain.job import AUTO
from core.errors import InvalidFieldError, SttError
from internal.api.dependencies import ApplicationOf, Language, Owner, StreamsOf, WatcherOf, slot_for
from internal.api.multipart import read_form
from internal.api.routes.body import Body, refuse_stated
from internal.api.routes.responses import TEXT, Responses, form
from internal.api.routes.streaming import JobStream, while_connected
from internal.api.schemas import openai as shapes
from internal.bootstrap import Application
from internal.services import openai, results, submissions
from internal.services.events import follow
from internal.services.job_watcher import Watcher
from internal.services.streams import Slot
from internal.services.submit_options import SubmitOptions, check
from repositories import workers
from repositories.models import Job

log = structlog.get_logger(__name__)
CLIENT_CLOSED_REQUEST = 499
"""Nobody reads this answer; the log line of the request shows it, as nginx has it."""
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


@router.post("/v1/audio/transcriptions", openapi_extra=FORM, responses=ANSWERS, response_class=Response)
async def transcribe(
    request: Request, parts: ApplicationOf, owner: Owner, watcher: WatcherOf, streams: StreamsOf, language: Language
) -> Response:
    """Waits on the queue. A client that hangs up loses nothing: the same body again finds its job."""
    slot = streams.take(owner)
    try:
        answer = await _transcribed(request, parts, owner, watcher, language, slot)
    except BaseException:
        slot.leave()
        raise
    if not isinstance(answer, JobStream):
        slot.leave()
    return answer


async def _transcribed(
    request: Request, parts: Application, owner: str, watcher: Watcher, language: str, slot: Slot
) -> Response:
    await refuse_stated(request, parts)
    body = Body(request)
    intake = submissions.Intake(parts, fingerprint=True)
    async with slot_for(request, owner) as turn, body.refusing(intake):
        fields = await read_form(request.headers.get("content-type", ""), turn.pieces(body.pieces()), intake)
        submit_options, kind = await _submit_options(parts, fields)
        job = await openai.accept(parts, intake, owner, submit_options, fields)
    if fields.get("stream", "").lower() in ("true", "1"):
        return JobStream(_deltas(parts, watcher, job, language), slot)
    try:
        done = await while_connected(request, openai.finished(parts, watcher, job))
    except ClientDisconnect:
        log.info("client hung up, the job goes on", action="client_gone", job_id=job.job_id)
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return await _answer(parts, done, kind, fields)


async def _submit_options(parts: Application, fields: dict[str, str]) -> tuple[SubmitOptions, str]:
    """Raises InvalidFieldError, UnsupportedLanguageError, UnknownModelError."""
    kind = fields.get("response_format") or "json"
    if kind not in FORMATS:
        raise InvalidFieldError(
            "response_format",
            "`response_format` {value} is unknown. Use {allowed}.",
            value=repr(kind[:20]),
            allowed=", ".join(FORMATS),
        )
    wanted = set(filter(None, fields.get(GRANULARITIES, "").split(",")))
    if wanted - {"segment", "word"}:
        raise InvalidFieldError("timestamp_granularities", "`timestamp_granularities` must be segment or word.")
    if wanted and kind != "verbose_json":
        raise InvalidFieldError(
            "timestamp_granularities", "`timestamp_granularities` requires response_format=verbose_json."
        )
    model = fields.get("model", "")
    asked = {
        **fields,
        "language": fields.get("language") or AUTO,
        "model": "" if model in openai.ANY_MODEL else model,
        "words": "word" in wanted,
    }
    return await check(parts, asked), kind


async def _answer(parts: Application, job: Job, kind: str, fields: dict[str, str]) -> Response:
    if kind in ("text", "srt", "vtt"):
        exporter, data = await results.exported(parts, job, "txt" if kind == "text" else kind)
        return Response(data, media_type=exporter.media_type)
    result = await results.stored(parts, job)
    if kind == "json":
        return JSONResponse({"text": result.text, "usage": shapes.usage(result)})
    wanted = fields.get(GRANULARITIES, "segment")
    segments, words = "segment" in wanted, "word" in wanted
    return JSONResponse(shapes.verbose(result, job.options.temperature, segments=segments, words=words))


async def _deltas(parts: Application, watcher: Watcher, job: Job, language: str) -> AsyncIterator[str]:
    """Each segment as it is finished, then the whole text."""
    try:
        first = True
        async with aclosing(follow(parts, watcher, job.job_id, 0)) as events:
            async for event in events:
                if event.segment is not None:
                    yield _data({"type": "transcript.text.delta", "delta": ("" if first else " ") + event.segment.text})
                    first = False
                elif event.kind == "quiet":
                    yield ": still here\n\n"
        done = await results.stored(parts, await openai.finished(parts, watcher, job))
        yield _data({"type": "transcript.text.done", "text": done.text})
    except asyncio.CancelledError:
        raise
    except SttError as error:
        yield _data(
            {"error": {"message": error.message(language), "type": "server_error", "param": None, "code": error.code}}
        )
    yield "data: [DONE]\n\n"


def _data(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


@router.get("/v1/models", responses={status: REFUSALS[status] for status in (401, 403, 429, 500, 503)})
async def models(parts: ApplicationOf, _: Owner) -> dict[str, Any]:
    """Every model that a live worker has."""
    async with parts.database.read() as session:
        alive = await workers.list_live(session)
    names = workers.available_models(alive)
    started = min((int(worker.started_at.timestamp()) for worker in alive), default=0)
    return shapes.models(names, started)
