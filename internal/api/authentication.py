"""Authentication of a request before its body is read; FastAPI runs dependencies after reading it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from core.errors import SttError
from internal.api.dependencies import AUTHOR, OWNER, get_optional_owner, get_owner
from internal.api.errors import on_stt_error
from internal.services.authentication import Authenticator
from internal.services.request_origin import RequestOrigin

UNCHECKED_PATHS = ("/live",)
"""Paths that container health checks request under any host name and address."""


class AuthenticationMiddleware:
    """Authenticates requests and stores the owner in the scope if the route depends on it."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator, routes: Sequence[APIRoute]) -> None:
        self.app, self._authenticator = app, authenticator
        self._owned_routes = [route for route in routes if depends_on_owner(route.dependant)]
        self._token_routes = [route for route in routes if depends_on(route.dependant, get_optional_owner)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in UNCHECKED_PATHS:
            try:
                await self._authenticate(scope)
            except SttError as error:
                await refuse(scope, receive, send, error)
                return
        await self.app(scope, receive, send)

    async def _authenticate(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        peer = scope["client"][0] if scope.get("client") else ""
        origin = RequestOrigin(peer, scope["method"], scope.get("http_version", "1.1"), headers)
        if self.requires_owner(scope):
            caller = await self._authenticator.authenticate(api_key(headers), origin)
            scope[OWNER], scope[AUTHOR] = caller.owner, caller.author
        else:
            await self._authenticator.check_public(origin)

    def requires_owner(self, scope: Scope) -> bool:
        if matches_any(self._token_routes, scope):
            return "token" not in QueryParams(scope.get("query_string", b""))
        return matches_any(self._owned_routes, scope)


def matches_any(routes: Sequence[APIRoute], scope: Scope) -> bool:
    path, method = scope["path"], scope["method"]
    return any(method in (route.methods or ()) and route.path_regex.match(path) for route in routes)


def depends_on_owner(dependant: Dependant) -> bool:
    """Return True for a route that needs a key, or a token in its place."""
    return depends_on(dependant, get_owner) or depends_on(dependant, get_optional_owner)


def depends_on(dependant: Dependant, call: Callable[..., Any]) -> bool:
    return dependant.call is call or any(depends_on(each, call) for each in dependant.dependencies)


def api_key(headers: Headers) -> str | None:
    """Return the key in X-API-Key, or the token in `Authorization: Bearer`; None without either."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else None)


async def refuse(scope: Scope, receive: Receive, send: Send, error: SttError) -> None:
    """Answer without reading the body; close the connection afterwards if there is a body."""
    response = await on_stt_error(Request(scope), error)
    headers = Headers(scope=scope)
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        response.headers["Connection"] = "close"
    await response(scope, receive, send)
