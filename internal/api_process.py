"""The API process: uvicorn with API_WORKERS processes, logging in the service's format."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from core import logging, metrics_values, tracing
from core.config import load_settings
from core.tasks import cancel_and_wait
from internal import bootstrap
from internal.api.app import create_app
from internal.api.connections import Config, throttle_accept_errors
from internal.bootstrap import Application
from internal.outage_retry import OutageRetry
from internal.process import announced_as_ready, private_files, settings_or_exit

SHUTDOWN_SECONDS = 25
"""Seconds that open requests get at shutdown."""
START_TIMEOUT = 5.0
"""Seconds that serving waits for the adapters to start; after that they start in the background."""


def serve() -> None:
    settings = settings_or_exit("api")
    config = Config(
        "internal.api_process:application",
        settings,
        factory=True,
        host=settings.api_host,
        port=settings.api_port,
        workers=settings.api_workers,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    if config.workers > 1:
        with metrics_values.shared_by_children():
            Multiprocess(config, sockets=[config.bind_socket()]).run()
        return
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after its shutdown
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def application() -> FastAPI:
    """Build the application of one worker process, configured from the environment like the parent process."""
    private_files()
    settings = load_settings()
    logging.configure_from(settings, "api")
    tracing.configure(settings.otel_exporter_otlp_endpoint, settings.otel_exporter_otlp_headers, "api")
    application = bootstrap.build(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running(application), announced_as_ready(settings.ready_file):
            yield

    return create_app(settings, application.services, lifespan)


@contextlib.asynccontextmanager
async def running(application: Application) -> AsyncIterator[None]:
    """Start the adapters, and stop them after the block. While one is down, the API answers 503 and keeps trying."""
    throttle_accept_errors(asyncio.get_running_loop())
    starting = asyncio.create_task(_start(application), name="start the adapters")
    await asyncio.wait([starting], timeout=START_TIMEOUT)
    if starting.done():
        starting.result()
    yield
    await cancel_and_wait(starting)
    await application.stop()
    await asyncio.to_thread(tracing.stop)


async def _start(application: Application) -> None:
    outage_retry = OutageRetry(max_wait=float("inf"))
    await asyncio.gather(
        outage_retry.run(application.storage.start),
        outage_retry.run(application.broker.start),
        outage_retry.run(application.services.api_keys.ensure_configured),
    )
