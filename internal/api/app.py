"""The HTTP application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.types import Lifespan, Scope

from core.config import Settings
from core.machine_metrics import ProcessMetrics
from core.version import VERSION
from internal.api import errors
from internal.api.authentication import AuthenticationMiddleware
from internal.api.middleware import BodyLimitMiddleware, RequestLogMiddleware, SecurityHeadersMiddleware
from internal.api.openapi import document_problems
from internal.api.routes import (
    admin,
    corrections,
    events,
    jobs,
    links,
    media,
    models,
    openai,
    page,
    results,
    service,
    transcribe,
    upload,
)
from internal.api.upload_slots import UploadSlots
from internal.services.registry import Services

ROUTERS = (upload, transcribe, links, results, events, jobs, media, corrections, models, openai, admin, page, service)
UPLOAD_PATHS = ("/api/v1/upload", "/api/stt/upload", "/api/transcribe", "/v1/audio/transcriptions")


def create_app(settings: Settings, services: Services, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Build the application. The caller starts and stops the adapters, in `lifespan` or outside it."""
    app = FastAPI(
        title="async-stt",
        version=VERSION,
        summary="Self-hosted, asynchronous speech to text.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.services = services
    app.state.metrics = ProcessMetrics(settings)
    app.state.upload_slots = UploadSlots(settings.max_concurrent_uploads, settings.upload_min_rate)
    app.state.api_routes = api_routes()
    errors.install(app)
    for router_module in ROUTERS:
        app.include_router(router_module.router)
    document_problems(app)
    # the middleware added last is the outermost
    app.add_middleware(BodyLimitMiddleware, streams=is_upload)
    app.add_middleware(AuthenticationMiddleware, authenticator=services.authenticator, routes=app.state.api_routes)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["ETag", "X-Request-ID", "Retry-After"],
        )
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(RequestLogMiddleware)
    return app


def api_routes() -> list[APIRoute]:
    """Return every route of the API, including those left out of the OpenAPI page."""
    return [route for router_module in ROUTERS for route in router_module.router.routes if isinstance(route, APIRoute)]


def is_upload(scope: Scope) -> bool:
    """Return whether the request's body is a recording, whose size is limited by its route."""
    path: str = scope["path"]
    return path in UPLOAD_PATHS or (scope["method"] == "PUT" and path.startswith("/api/v1/uploads/"))
