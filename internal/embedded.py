"""The embedded service: api, consumer and scheduler in one process tree, on the stores the settings name.

With the default settings these are SQLite, a local directory and a queue in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn
from filelock import lock_descriptor

from core.errors import SettingsError
from internal import bootstrap
from internal.api.app import create_app
from internal.api.connections import BACKLOG, Config, throttle_accept_errors
from internal.bootstrap import Application
from internal.consumer.runtime import GRACE
from internal.services import authentication
from migrations.run import upgrade
from repositories import schedule

log = structlog.get_logger(__name__)
OPEN_STREAMS = 5
"""Seconds that event streams and uploads get at the end; their clients come back and go on."""


class Embedded:
    """Owns DATA_DIR: a second one on the same directory is refused, so at start nobody else holds any claim."""

    def __init__(self, parts: Application) -> None:
        self.parts = parts
        self._lock: int | None = None
        self._consumer = bootstrap.consumer(parts)
        self._scheduler = bootstrap.scheduler(parts)
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises SettingsError when DATA_DIR is another service's or the port is taken."""
        settings = self.parts.settings
        self._lock = _own(Path(settings.data_dir))
        listener = _listen(settings.api_host, settings.api_port)
        await upgrade(self.parts.database)
        async with self.parts.database.write() as session:
            await schedule.release_all(session)
        await authentication.ensure_first(self.parts)
        await self._consumer.start()
        await self._scheduler.start()
        await self._serve(listener)
        host, port = listener.getsockname()[:2]
        log.info("async-stt is ready", action="ready", url=f"http://{host}:{port}", data=str(settings.data_dir))

    async def _serve(self, listener: socket.socket) -> None:
        # lifespan off: the parts are started and stopped here, for all three services
        config = Config(
            create_app(self.parts), self.parts.settings, lifespan="off", timeout_graceful_shutdown=OPEN_STREAMS
        )
        throttle_accept_errors(asyncio.get_running_loop())
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http server")

    async def failed(self) -> Exception:
        return await self._consumer.failed()

    async def stop(self) -> None:
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait([self._serving])
            self._server = None
        await self._scheduler.stop()
        await self._consumer.stop(GRACE - OPEN_STREAMS)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class _Server(uvicorn.Server):
    """Signals are the process's business, not the HTTP server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _own(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not lock_descriptor(descriptor, blocking=False):
        os.close(descriptor)
        raise SettingsError(f"DATA_DIR: another async-stt is running on {folder}; stop it or use another folder")
    return descriptor


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"API_HOST, API_PORT: cannot listen on {host}:{port} ({error.strerror})") from None
    listener.listen(BACKLOG)
    return listener
