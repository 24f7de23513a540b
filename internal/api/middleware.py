"""Middleware of every request: request id and log line, security headers, body limit."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import tracing
from core.errors import BodyTooLargeError, SttError, UploadTimeoutError
from core.metrics import REQUEST_SECONDS, REQUESTS
from internal.api.errors import MAX_PATH, on_stt_error

log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
UNMATCHED = "unmatched"
UNLOGGED_PATHS = ("/live", "/metrics")


class RequestLogMiddleware:
    """Adds a request id and logs one line per request, without the query string, which may be a secret."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        client_id = headers.get("x-request-id", "")
        request_id = client_id if _REQUEST_ID.fullmatch(client_id) else uuid.uuid4().hex
        started, status = time.monotonic(), 500
        tracing.note_request(headers.get("traceparent", ""))

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            finally:
                _record(scope, status, time.monotonic() - started)


def _record(scope: Scope, status: int, seconds: float) -> None:
    """Update the metrics and log the request. Labels have fixed sets of values, because each value stays in memory."""
    route = getattr(scope.get("route"), "path", UNMATCHED)
    method = scope["method"] if scope["method"] in METHODS else "OTHER"
    REQUESTS.labels(method, route, str(status)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    if scope["path"] not in UNLOGGED_PATHS:
        milliseconds = round(seconds * 1000, 1)
        code = scope.get("state", {}).get("error_code")
        error = {} if code is None else {"code": code}
        write = log.warning if status >= 500 else log.info
        write(
            "request",
            action="request",
            method=method,
            path=printable(scope["path"]),
            status=status,
            ms=milliseconds,
            **error,
        )


def printable(path: str) -> str:
    """Return the path shortened to MAX_PATH characters, with unprintable ones replaced."""
    shortened = path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}…"
    return "".join(character if character.isprintable() else "�" for character in shortened)


SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class SecurityHeadersMiddleware:
    """Adds headers that restrict what browsers do with a response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                # pages set their own; all other responses are data and may load nothing
                headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


MAX_BODY = 64 * 1024
BODY_SECONDS = 30.0
"""Seconds within which a limited body has to arrive."""


class BodyLimitMiddleware:
    """Refuses bodies over 64 KiB or slower than BODY_SECONDS. Upload routes have limits of their own."""

    def __init__(self, app: ASGIApp, streams: Callable[[Scope], bool]) -> None:
        """streams: returns whether the body of a request is streamed by its route, which then limits it."""
        self.app, self._streams = app, streams

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._streams(scope):
            await self.app(scope, receive, send)
            return
        if stated_length(Headers(scope=scope)) > MAX_BODY:
            await _refuse(scope, receive, send, BodyTooLargeError())
            return
        body = _LimitedBody(receive, send)
        await self.app(scope, body.receive, body.send)
        if body.refusal is not None and not body.responded:
            await _refuse(scope, receive, send, body.refusal)


class _LimitedBody:
    """The body of one request, with its limits, and whether a response was sent."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._left = MAX_BODY
        self._deadline: float | None = asyncio.get_running_loop().time() + BODY_SECONDS
        self.refusal: SttError | None = None
        self.responded = False

    async def receive(self) -> Message:
        """Receive the next message. Raises BodyTooLargeError, UploadTimeoutError."""
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            return self._refused(UploadTimeoutError())
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            return self._refused(BodyTooLargeError())
        if not message.get("more_body", False):
            self._deadline = None  # the only message that can follow is the disconnect
        return message

    def _refused(self, error: SttError) -> Message:
        if self.responded:
            return {"type": "http.disconnect"}
        self.refusal = error
        raise error

    async def send(self, message: Message) -> None:
        # after a refusal, drop the response that FastAPI makes of the error
        if self.refusal is None:
            self.responded = True
            await self._send(message)


def stated_length(headers: Headers) -> int:
    stated = headers.get("content-length", "")
    return int(stated) if stated.isascii() and stated.isdigit() and len(stated) < 20 else 0


async def _refuse(scope: Scope, receive: Receive, send: Send, error: SttError) -> None:
    response = await on_stt_error(Request(scope), error)
    await response(scope, receive, send)
