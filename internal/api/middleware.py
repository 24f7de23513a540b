"""Around every request: an id, one log line (no query string, it may be a secret), safe headers, small bodies."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable

import structlog
from prometheus_client import Counter, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import BodyTooLargeError
from internal.api.errors import on_stt_error

log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:-]{1,128}$")
REQUESTS = Counter("stt_http_requests_total", "HTTP requests", ["method", "route", "status"])
SECONDS = Histogram("stt_http_request_seconds", "Seconds until a request's answer was sent", ["route"])
_QUIET = ("/live", "/metrics")


class RequestLog:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get("x-request-id", ""))
        started, status = time.monotonic(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, answer)
            finally:
                _record(scope, status, time.monotonic() - started)


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.match(given) else uuid.uuid4().hex


def _record(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", "unknown")
    REQUESTS.labels(scope["method"], route, str(status)).inc()
    SECONDS.labels(route).observe(seconds)
    if scope["path"] not in _QUIET:
        milliseconds = round(seconds * 1000, 1)
        log.info(
            "request", action="request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds
        )


SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGES = ("/docs", "/redoc")
"""Pages that load scripts; everything else is data and may load nothing."""


class SafeHeaders:
    """What a browser needs to be told so that an answer cannot be misused."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if scope["path"] not in PAGES:
                    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        await self.app(scope, receive, answer if scope["type"] == "http" else send)


MAX_BODY = 64 * 1024


class SmallBodies:
    """Bodies over 64 KiB are refused before they are read, but where recordings arrive: those routes count."""

    def __init__(self, app: ASGIApp, streams: Callable[[Scope], bool]) -> None:
        """streams: whether this request's body is read as it arrives."""
        self.app, self._streams = app, streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._streams(scope):
            await self.app(scope, receive, send)
            return
        stated = Headers(scope=scope).get("content-length", "")
        if stated.isdigit() and int(stated) > MAX_BODY:
            await _refuse(scope, receive, send)
            return
        left = MAX_BODY

        async def counted() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise BodyTooLargeError
            return message

        async def answer(message: Message) -> None:
            # the framework makes an answer of its own of whatever goes wrong while a body is read
            if left >= 0:
                await send(message)

        await self.app(scope, counted, answer)
        if left < 0:
            await _refuse(scope, receive, send)


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    response = await on_stt_error(Request(scope), BodyTooLargeError())
    await response(scope, receive, send)
