"""Errors as `application/problem+json` (RFC 9457), with a readable `detail`; the OpenAI routes use OpenAI's format."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from core.errors import InternalError, JobNotFoundError, SttError, UnauthorizedError
from core.texts import translate, validation_text
from internal.api.dependencies import get_language
from internal.services.transcriptions import JobFailed

log = structlog.get_logger(__name__)
OPENAI_PREFIX = "/v1/"
MAX_PATH = 500
"""Characters of a path in a response and in the log."""


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    if request.scope["path"].startswith(OPENAI_PREFIX):
        return openai_error(status, code, detail, errors, headers)
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": translate(HTTPStatus(status).phrase, get_language(request)),
        "status": status,
        "detail": detail,
        "instance": request.scope["path"][:MAX_PATH],
        "code": code,
        **extra,
    }
    if errors:
        body["errors"] = errors
    headers = {"Content-Language": get_language(request), "Vary": "Accept-Language"} | (headers or {})
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


def openai_error(
    status: int, code: str, message: str, errors: list[dict[str, Any]] | None, headers: dict[str, str] | None
) -> JSONResponse:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    error = {
        "message": message,
        "type": "server_error" if status >= 500 else kind,
        "param": errors[0]["field"] if errors else None,
        "code": "invalid_api_key" if status == 401 else code.lower(),
    }
    return JSONResponse({"error": error}, status, headers=headers)


async def on_stt_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SttError)
    request.state.error_code = error.code
    detail = error.message(get_language(request))
    errors = [{"field": error.field, "message": detail}] if error.field and error.http_status == 422 else None
    job_id = request.path_params.get("job_id") if not isinstance(error, JobNotFoundError) else None
    extra = error.members | ({"job_id": job_id} if job_id else {})
    headers = headers_of(error)
    return problem(request, error.http_status, error.code, detail, errors=errors, headers=headers, **extra)


def headers_of(error: SttError) -> dict[str, str]:
    headers = error.headers
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, JobFailed):
        # by default, OpenAI's clients repeat a request after 409 and 5xx
        headers["x-should-retry"] = "false"
    return headers


async def on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).name
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # the framework names only the methods of the first route with this path
        path = request.scope["path"]
        routes = [route for route in request.app.state.api_routes if route.path_regex.match(path)]
        headers["Allow"] = ", ".join(sorted({method for route in routes for method in route.methods or ()}))
    detail = translate(str(error.detail), get_language(request))
    return problem(request, error.status_code, code, detail, headers=headers)


async def on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    language = get_language(request)
    errors = [
        {
            "field": _field(item),
            "message": validation_text(item["type"], language, item["msg"], item.get("ctx") or {}),
        }
        for item in error.errors()
    ]
    detail = "; ".join(f"`{item['field']}`: {item['message']}" for item in errors)
    return problem(request, 422, "INVALID_FIELD", detail, errors=errors)


def _field(item: dict[str, Any]) -> str:
    """Return the dotted path of the field, or `body` if the body is not JSON."""
    path = item["loc"][1:] if item["type"] != "json_invalid" else ()
    return ".".join(str(name) for name in path) or str(item["loc"][0])


async def on_unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", action="internal_error", path=request.scope["path"][:MAX_PATH], exc_info=error)
    internal = InternalError()
    return problem(request, 500, internal.code, internal.message(get_language(request)))


def install(app: FastAPI) -> None:
    app.add_exception_handler(SttError, on_stt_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(Exception, on_unexpected)
