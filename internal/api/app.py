"""The HTTP application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from core.config import load_settings
from internal import bootstrap
from internal.api import errors
from internal.api.middleware import RequestLog
from internal.api.routes import jobs, lifecycle, service, upload
from internal.bootstrap import VERSION, Parts
from internal.patience import Patience
from internal.services.estimates import Estimator


def create_app(parts: Parts) -> FastAPI:
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
    app.add_middleware(RequestLog)
    errors.install(app)
    for router in (upload.router, jobs.router, lifecycle.router, service.router):
        app.include_router(router)
    return app


def factory() -> FastAPI:
    """For uvicorn's worker processes: settings from the environment."""
    return create_app(bootstrap.build(load_settings()))


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """A part that is down does not stop the API: it keeps trying, and answers 503 meanwhile."""
    parts: Parts = app.state.parts
    starting = asyncio.create_task(_start(parts), name="start the parts")
    await asyncio.wait([starting], timeout=5)
    if starting.done():
        starting.result()
    yield
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await starting
    await parts.stop()


async def _start(parts: Parts) -> None:
    patience = Patience(longest=float("inf"))
    await asyncio.gather(patience.run(parts.storage.start), patience.run(parts.broker.start))
