"""The API process: uvicorn with API_WORKERS processes, its lines in our log's format."""

from __future__ import annotations

import sys

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from core import logging
from core.config import load_settings
from internal.api.connections import Config
from internal.process import private_files, settings_or_exit


def serve() -> None:
    settings = settings_or_exit("api")
    config = Config(
        "internal.api.server:application",
        settings,
        factory=True,
        host=settings.api_host,
        port=settings.api_port,
        workers=settings.api_workers,
        timeout_graceful_shutdown=25,
    )
    if config.workers > 1:
        Multiprocess(config, sockets=[config.bind_socket()]).run()
        return
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def application() -> object:
    """Each worker process configures itself as the first process did."""
    from internal.api.app import factory

    private_files()
    logging.configure_from(load_settings(), "api")
    return factory()
