"""Decides who may call before a byte of a request's body is read, for every route alike.

A route that asks for the owner gets the one found here. The framework by itself reads the body first.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import SttError
from internal.api.dependencies import OWNER, get_owner
from internal.api.errors import on_stt_error
from internal.services.authentication import Authenticator
from internal.services.callers import Caller

ALWAYS = ("/live",)
"""Paths that container checks ask, by whatever name and address they know this process."""


class AuthenticationMiddleware:
    def __init__(self, app: ASGIApp, access: Authenticator, routes: Sequence[APIRoute]) -> None:
        self.app, self._access = app, access
        self._owned = [route for route in routes if asks_for_owner(route.dependant)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in ALWAYS:
            try:
                await self._admit(scope)
            except SttError as error:
                await refuse(scope, receive, send, error)
                return
        await self.app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        caller = caller_of(scope, headers)
        if self._is_owned(scope):
            scope[OWNER] = await self._access.owner(key_in(headers), caller)
        else:
            await self._access.visit(caller)

    def _is_owned(self, scope: Scope) -> bool:
        path, method = scope["path"], scope["method"]
        return any(method in (route.methods or ()) and route.path_regex.match(path) for route in self._owned)


def asks_for_owner(dependant: Dependant) -> bool:
    return dependant.call is get_owner or any(map(asks_for_owner, dependant.dependencies))


def caller_of(scope: Scope, headers: Headers) -> Caller:
    peer = scope["client"][0] if scope.get("client") else ""
    return Caller(peer, scope["method"], scope.get("http_version", "1.1"), headers)


def key_in(headers: Headers) -> str | None:
    """X-API-Key, or else the token of `Authorization: Bearer`."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else None)


async def refuse(scope: Scope, receive: Receive, send: Send, error: SttError) -> None:
    """Answer without the body, and close the connection where one is on its way."""
    response = await on_stt_error(Request(scope), error)
    if expects_body(Headers(scope=scope)):
        response.headers["Connection"] = "close"
    await response(scope, receive, send)


def expects_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
