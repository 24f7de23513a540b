"""What routes ask for. Asking for the owner is what checks the key and counts the request."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from internal.bootstrap import Parts
from internal.services.access import Access
from internal.services.estimates import Estimator
from internal.services.watching import Watcher

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="stt_ID_SECRET")
_bearer = HTTPBearer(auto_error=False, description="the same key")


def get_parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def get_estimator(request: Request) -> Estimator:
    estimator: Estimator = request.app.state.estimator
    return estimator


def get_watcher(request: Request) -> Watcher:
    watcher: Watcher = request.app.state.watcher
    return watcher


PartsOf = Annotated[Parts, Depends(get_parts)]
EstimatorOf = Annotated[Estimator, Depends(get_estimator)]
WatcherOf = Annotated[Watcher, Depends(get_watcher)]


async def get_owner(
    request: Request,
    key: Annotated[str | None, Security(_header)] = None,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> str:
    """Raises UnauthorizedError, RateLimitedError."""
    access: Access = request.app.state.access
    return await access.owner(key or (bearer.credentials if bearer else None))


Owner = Annotated[str, Depends(get_owner)]
