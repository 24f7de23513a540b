"""The HTTP application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.types import Scope

from core.config import load_settings
from core.tasks import cancel_and_wait
from internal import bootstrap
from internal.api import errors
from internal.api.authentication import AuthenticationMiddleware
from internal.api.connections import throttle_accept_errors
from internal.api.middleware import BodyLimitMiddleware, RequestLogMiddleware, SecurityHeadersMiddleware
from internal.api.openapi import describe
from internal.api.routes import events, jobs, links, openai, results, service, transcribe, upload
from internal.api.slots import Slots
from internal.bootstrap import VERSION, Application
from internal.outage_retry import OutageRetry
from internal.services import authentication
from internal.services.authentication import Authenticator
from internal.services.estimates import Estimator
from internal.services.job_watcher import Watcher
from internal.services.streams import Streams

ROUTERS = (upload, transcribe, links, results, events, jobs, openai, service)


def api_routes() -> list[APIRoute]:
    """Every route of ours, those too that the OpenAPI page does not show."""
    return [route for router_module in ROUTERS for route in router_module.router.routes if isinstance(route, APIRoute)]


def create_app(parts: Application) -> FastAPI:
    """The routes over these parts. Its lifespan starts and stops them; without a lifespan that is the caller's."""
    app = FastAPI(
        title="async-stt",
        version=VERSION,
        summary="Self-hosted, asynchronous speech to text.",
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.state.parts = parts
    app.state.estimator = Estimator(parts.database)
    app.state.watcher = Watcher(parts.database)
    app.state.streams = Streams(parts.settings)
    app.state.access = Authenticator(parts)
    app.state.slots = Slots(parts.settings.max_concurrent_uploads, parts.settings.upload_min_rate)
    app.state.api_routes = api_routes()
    errors.install(app)
    for router_module in ROUTERS:
        app.include_router(router_module.router)
    describe(app)
    # the last added is the outermost
    app.add_middleware(BodyLimitMiddleware, streams=streams)
    app.add_middleware(AuthenticationMiddleware, access=app.state.access, routes=app.state.api_routes)
    if parts.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(parts.settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestLogMiddleware)
    return app


STREAMED = ("/api/v1/upload", "/api/stt/upload", "/api/transcribe", "/v1/audio/transcriptions")


def streams(scope: Scope) -> bool:
    """Whether this request carries a recording, which its route counts by itself."""
    path: str = scope["path"]
    return path in STREAMED or (scope["method"] == "PUT" and path.startswith("/api/v1/uploads/"))


def factory() -> FastAPI:
    """For uvicorn's worker processes: settings from the environment."""
    return create_app(bootstrap.build(load_settings()))


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """A part that is down does not stop the API: it keeps trying, and answers 503 meanwhile."""
    parts: Application = app.state.parts
    throttle_accept_errors(asyncio.get_running_loop())
    starting = asyncio.create_task(_start(parts), name="start the parts")
    await asyncio.wait([starting], timeout=5)
    if starting.done():
        starting.result()
    yield
    await cancel_and_wait(starting)
    await parts.stop()


async def _start(parts: Application) -> None:
    outage_retry = OutageRetry(max_wait=float("inf"))
    await asyncio.gather(
        outage_retry.run(parts.storage.start),
        outage_retry.run(parts.broker.start),
        outage_retry.run(lambda: authentication.ensure_first(parts)),
    )
