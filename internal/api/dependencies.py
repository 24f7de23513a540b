"""Dependencies of the routes.

A route that depends on the owner requires authentication and counts toward the rate limit.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from core.config import Settings
from core.errors_models import AdminOnlyError
from core.texts import ENGLISH, VIETNAMESE
from internal.api.upload_slots import UploadSlot
from internal.services.api_keys import ApiKeys
from internal.services.authentication import LOCAL_OWNER, Authenticator
from internal.services.corrections import Corrections
from internal.services.dead_letters import DeadLetters
from internal.services.health import HealthCheck
from internal.services.job_events import JobEvents
from internal.services.job_views import JobViews
from internal.services.jobs import Jobs
from internal.services.media import Media
from internal.services.models import Models
from internal.services.registry import Services
from internal.services.results import Results
from internal.services.statistics import Statistics
from internal.services.stream_limiter import StreamLimiter
from internal.services.submissions import Submissions
from internal.services.submit_options import SubmitOptionsValidator
from internal.services.transcriptions import Transcriptions
from internal.services.upload_links import UploadLinks
from internal.services.url_submissions import UrlSubmissions

_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="stt_ID_SECRET")
_bearer = HTTPBearer(auto_error=False, description="the same key")
OWNER = "stt.owner"
"""Scope key under which `AuthenticationMiddleware` stores the owner."""
AUTHOR = "stt.author"
"""Scope key under which it stores the name of the key."""
MAX_ACCEPT = 1000
"""Characters of Accept-Language that are read."""


def _service(select: Callable[[Services], object]) -> Any:
    async def get(request: Request) -> object:
        return select(request.app.state.services)

    return Depends(get)


ApiKeysDep = Annotated[ApiKeys, _service(lambda services: services.api_keys)]
AuthenticatorDep = Annotated[Authenticator, _service(lambda services: services.authenticator)]
CorrectionsDep = Annotated[Corrections, _service(lambda services: services.corrections)]
DeadLettersDep = Annotated[DeadLetters, _service(lambda services: services.dead_letters)]
HealthCheckDep = Annotated[HealthCheck, _service(lambda services: services.health_check)]
JobEventsDep = Annotated[JobEvents, _service(lambda services: services.job_events)]
JobViewsDep = Annotated[JobViews, _service(lambda services: services.job_views)]
JobsDep = Annotated[Jobs, _service(lambda services: services.jobs)]
MediaDep = Annotated[Media, _service(lambda services: services.media)]
ModelsDep = Annotated[Models, _service(lambda services: services.models)]
ResultsDep = Annotated[Results, _service(lambda services: services.results)]
StatisticsDep = Annotated[Statistics, _service(lambda services: services.statistics)]
StreamLimiterDep = Annotated[StreamLimiter, _service(lambda services: services.stream_limiter)]
SubmissionsDep = Annotated[Submissions, _service(lambda services: services.submissions)]
SubmitOptionsDep = Annotated[SubmitOptionsValidator, _service(lambda services: services.submit_options)]
TranscriptionsDep = Annotated[Transcriptions, _service(lambda services: services.transcriptions)]
UploadLinksDep = Annotated[UploadLinks, _service(lambda services: services.upload_links)]
UrlSubmissionsDep = Annotated[UrlSubmissions, _service(lambda services: services.url_submissions)]


async def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def get_language(request: Request) -> str:
    """Return `en` or `vi`, whichever Accept-Language prefers; English if it names neither."""
    chosen, greatest = ENGLISH, 0.0
    for option in request.headers.get("accept-language", "")[:MAX_ACCEPT].split(","):
        name, _, parameter = option.partition(";")
        language, weight = name.strip().lower().partition("-")[0], _weight(parameter)
        if language in (ENGLISH, VIETNAMESE) and weight > greatest:
            chosen, greatest = language, weight
    return chosen


def _weight(parameter: str) -> float:
    """Return the weight in a parameter such as `q=0.8`; 1 if there is none, 0 if it is not a number from 0 to 1."""
    name, _, value = parameter.partition("=")
    if name.strip().lower() != "q":
        return 1.0
    try:
        weight = float(value)
    except ValueError:
        return 0.0
    return weight if 0 <= weight <= 1 else 0.0


async def get_owner(
    request: Request,
    _key: Annotated[str | None, Security(_header)] = None,
    _bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> str:
    """Return the owner that `AuthenticationMiddleware` stored. The other parameters only document the API key."""
    owner: str = request.scope[OWNER]
    return owner


async def get_optional_owner(
    request: Request,
    _key: Annotated[str | None, Security(_header)] = None,
    _bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
) -> str | None:
    """Return the owner, or None for a request with `token` in its query, which the route has to verify."""
    owner: str | None = request.scope.get(OWNER)
    return owner


OptionalOwner = Annotated[str | None, Depends(get_optional_owner)]
Owner = Annotated[str, Depends(get_owner)]


async def get_author(request: Request, owner: Owner) -> str:
    """Return the name of the request's key."""
    author: str = request.scope[AUTHOR]
    return author


async def get_idempotency_key(request: Request) -> str | None:
    return request.headers.get("idempotency-key")


def upload_slot(request: Request, owner: str) -> AbstractAsyncContextManager[UploadSlot]:
    """Return a slot for an upload of this owner. Clients without a key share the slots by address."""
    settings: Settings = request.app.state.settings
    if owner != LOCAL_OWNER:
        share_key: str | None = owner
    elif settings.loopback and not settings.allow_anonymous:
        share_key = None
    else:
        share_key = request.client.host if request.client else ""
    slot: AbstractAsyncContextManager[UploadSlot] = request.app.state.upload_slots.acquire(share_key)
    return slot


Author = Annotated[str, Depends(get_author)]
IdempotencyKey = Annotated[str | None, Depends(get_idempotency_key)]
Language = Annotated[str, Depends(get_language)]


async def get_admin(request: Request, owner: Owner) -> str:
    """Return the owner if it is the operator. Raises AdminOnlyError."""
    services: Services = request.app.state.services
    if not services.authenticator.is_admin(owner):
        raise AdminOnlyError
    return owner


Admin = Annotated[str, Depends(get_admin)]
SettingsDep = Annotated[Settings, Depends(get_settings)]
