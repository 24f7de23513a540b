"""The embedded service: api, consumer and scheduler in one process tree.

The default settings use SQLite, a local folder and an in-memory queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from core.domain.job import OPEN
from core.errors import DatabaseUnavailable, SettingsError
from core.tasks import cancel_and_wait
from internal import bootstrap, data_folder
from internal.api.app import create_app
from internal.api.connections import BACKLOG, Config, throttle_accept_errors
from internal.bootstrap import Application
from internal.consumer.runtime import GRACE
from migrations import revisions
from repositories import job_statistics, schedule

log = structlog.get_logger(__name__)
UNUSED_CHECK_SECONDS = 0.3
OPEN_REQUESTS_SECONDS = 5
"""Seconds that open requests get at shutdown; the clients of event streams reconnect."""


class Embedded:
    """The service on one DATA_DIR. A lock refuses a second one, so that no claim can be held at start.

    on_demand: it was started for a command, and ends once no command uses it and no job is unfinished.
    """

    def __init__(self, application: Application, *, on_demand: bool = False) -> None:
        self.application = application
        self._on_demand = on_demand
        self._folder = Path(application.settings.data_dir)
        self._watching: asyncio.Task[None] | None = None
        self._descriptor: int | None = None
        self._consumer = bootstrap.consumer(application)
        self._scheduler = bootstrap.scheduler(application)
        self._server: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Upgrade the schema and start everything. Raises SettingsError if DATA_DIR or the port is in use."""
        settings = self.application.settings
        self._descriptor = data_folder.lock(self._folder)
        listener = _listen(settings.api_host, settings.api_port)
        await self._upgrade()
        async with self.application.database.write() as session:
            await schedule.release_all(session)
        await self.application.services.api_keys.ensure_configured()
        await self._consumer.start()
        await self._scheduler.start()
        await self._serve(listener)
        host, port = listener.getsockname()[:2]
        log.info("async-stt is ready", action="ready", url=f"http://{host}:{port}", data=str(settings.data_dir))
        data_folder.announce(self._descriptor, data_folder.Address(_own_url(host, port), os.getpid(), self._on_demand))
        if self._on_demand:
            self._watching = asyncio.create_task(self._end_when_unused(), name="wait until no command is left")

    async def _end_when_unused(self) -> None:
        """End this process once no command uses the service and its jobs have ended. Then no new command may join."""
        while True:
            await asyncio.sleep(UNUSED_CHECK_SECONDS)
            descriptor = data_folder.claim_unused(self._folder)
            if descriptor is None:
                continue
            with contextlib.suppress(DatabaseUnavailable):
                async with self.application.database.read() as session:
                    counts = await job_statistics.count_by_status(session)
                if not any(counts[status] for status in OPEN):
                    log.info("no command uses the service", action="unused")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return  # the lock is kept until the process has ended
            os.close(descriptor)

    async def _upgrade(self) -> None:
        database = self.application.database
        if await revisions.current_revision(database) != revisions.newest():
            from migrations.run import upgrade  # loads Alembic

            await upgrade(database)

    async def _serve(self, listener: socket.socket) -> None:
        # lifespan is off because this class starts and stops the adapters for all three services
        app = create_app(self.application.settings, self.application.services)
        config = Config(app, self.application.settings, lifespan="off", timeout_graceful_shutdown=OPEN_REQUESTS_SECONDS)
        throttle_accept_errors(asyncio.get_running_loop())
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]), name="http server")

    async def failed(self) -> Exception:
        return await self._consumer.failed()

    async def stop(self) -> None:
        if self._watching is not None:
            await cancel_and_wait(self._watching)
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.wait([self._serving])
            self._server = None
        await self._scheduler.stop()
        await self._consumer.stop(GRACE - OPEN_REQUESTS_SECONDS)
        if self._descriptor is not None:
            data_folder.unlock(self._descriptor)
            self._descriptor = None


class _Server(uvicorn.Server):
    """A server that leaves signal handling to `internal/process.py`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _own_url(host: str, port: int) -> str:
    """Return the address at which programs on this machine reach a listener."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
