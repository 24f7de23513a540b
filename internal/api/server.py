"""The API process: uvicorn with API_WORKERS processes, its lines in our log's format."""

from __future__ import annotations

import uvicorn

from core import logging
from core.config import BrokerKind, load_settings
from internal.process import settings_or_exit


def serve() -> None:
    settings = settings_or_exit("api")
    # a queue in memory lives in one process
    workers = 1 if settings.broker is BrokerKind.MEMORY else settings.api_workers
    uvicorn.run(
        "internal.api.server:application",
        factory=True,
        host=settings.api_host,
        port=settings.api_port,
        workers=workers,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=25,
    )


def application() -> object:
    """Each worker process configures its own log."""
    from internal.api.app import factory

    settings = load_settings()
    logging.configure(settings.log_level, settings.log_format, settings.log_file, "api")
    return factory()
