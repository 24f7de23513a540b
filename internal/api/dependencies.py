"""What routes ask for. A route that asks for the owner has its key checked and its requests counted."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from core.texts import ENGLISH, VIETNAMESE
from internal.api.slots import Slot
from internal.bootstrap import Application
from internal.services.authentication import LOCAL
from internal.services.estimates import Estimator
from internal.services.job_watcher import Watcher
from internal.services.streams import Streams

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="stt_ID_SECRET")
_bearer = HTTPBearer(auto_error=False, description="the same key")


MAX_ACCEPT = 1000
"""Characters of Accept-Language that are read."""


def get_parts(request: Request) -> Application:
    parts: Application = request.app.state.parts
    return parts


def get_estimator(request: Request) -> Estimator:
    estimator: Estimator = request.app.state.estimator
    return estimator


def get_watcher(request: Request) -> Watcher:
    watcher: Watcher = request.app.state.watcher
    return watcher


def get_language(request: Request) -> str:
    """`en` or `vi`: what Accept-Language prefers of the two, English where it names neither.

    The greatest weight wins, and of equal ones the first.
    """
    chosen, greatest = ENGLISH, 0.0
    for part in request.headers.get("accept-language", "")[:MAX_ACCEPT].split(","):
        name, _, parameter = part.partition(";")
        language, weight = name.strip().lower().partition("-")[0], _weight(parameter)
        if language in (ENGLISH, VIETNAMESE) and weight > greatest:
            chosen, greatest = language, weight
    return chosen


def _weight(parameter: str) -> float:
    """Of `q=0.8`; 1 where there is none, 0 where it is no number from 0 to 1."""
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0


def get_streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


ApplicationOf = Annotated[Application, Depends(get_parts)]
EstimatorOf = Annotated[Estimator, Depends(get_estimator)]
WatcherOf = Annotated[Watcher, Depends(get_watcher)]
StreamsOf = Annotated[Streams, Depends(get_streams)]
Language = Annotated[str, Depends(get_language)]


OWNER = "stt.owner"
"""Where `Admission` leaves the owner in the scope."""


async def get_owner(
    request: Request,
    _key: Annotated[str | None, Security(_header)] = None,
    _bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> str:
    """The owner that `Admission` found before the body was read. The parameters document the keys."""
    owner: str = request.scope[OWNER]
    return owner


def slot_for(request: Request, owner: str) -> AbstractAsyncContextManager[Slot]:
    """A slot for an upload of this owner. Callers without a key share by their addresses."""
    parts, slots = get_parts(request), request.app.state.slots
    if owner != LOCAL:
        sharer: str | None = owner
    elif parts.settings.loopback and not parts.settings.allow_anonymous:
        sharer = None
    else:
        sharer = request.client.host if request.client else ""
    found: AbstractAsyncContextManager[Slot] = slots.taken(sharer)
    return found


Owner = Annotated[str, Depends(get_owner)]
