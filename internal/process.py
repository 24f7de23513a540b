"""Startup and shutdown of every process: settings, logging, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import structlog

from core import logging, tracing
from core.config import BrokerKind, Settings, StorageKind, load_settings
from core.errors import SettingsError
from core.machine_metrics import ProcessMetrics
from internal import bootstrap
from internal.bootstrap import Application
from internal.metrics_server import MetricsServer
from internal.periodic_tasks import PeriodicTasks

log = structlog.get_logger(__name__)
STOP_TIMEOUT = 37.0
"""Seconds for the whole shutdown, less than `stop_grace_period` in deploy/compose.yaml."""
READY_INTERVAL = 5.0
"""Seconds between two touches of READY_FILE."""
SEPARATE_PROCESSES = ("api", "consumer", "scheduler")
"""Processes that share the broker with other processes."""


class Service(Protocol):
    """The service that a process runs."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def failed(self) -> Exception:
        """Wait until the service cannot continue, and return the reason."""
        ...


def private_files() -> None:
    """Make new files and folders of this process and its children private to their owner."""
    os.umask(0o077)


def make_private(data_dir: Path) -> None:
    """Remove permissions of other users that an older version or a different umask left in DATA_DIR."""
    for path in (*data_dir.glob("stt.db*"), data_dir / "objects"):
        with contextlib.suppress(OSError):
            if path.stat().st_mode & 0o077:
                path.chmod(0o700 if path.is_dir() else 0o600)


def drop_secrets() -> None:
    """Remove secret settings, once read, from the environment, which engine processes inherit."""
    secret_names = {name.upper() for name, field in Settings.model_fields.items() if not field.repr}
    for name in [name for name in os.environ if name.upper() in secret_names]:
        del os.environ[name]


def settings_or_exit(process: str) -> Settings:
    """Return the settings and configure logging. An invalid setting ends the process with status 2."""
    private_files()
    try:
        settings = load_settings()
        if process in SEPARATE_PROCESSES and settings.broker is BrokerKind.MEMORY:
            raise SettingsError(
                f"BROKER: memory is a queue inside one process, which a separate {process} cannot share. "
                "Run everything in one process (`make run`, cmd/embedded/main.py), "
                "or set BROKER=rabbitmq and RABBITMQ_URL"
            )
    except SettingsError as error:
        sys.stderr.write(f"async-stt cannot start:\n{error}\n")
        raise SystemExit(2) from None
    logging.configure_from(settings, process)
    _warn_about_local_stores(process, settings)
    make_private(Path(settings.data_dir))
    if settings.ready_file:
        # of an earlier process, which may have been killed
        settings.ready_file.unlink(missing_ok=True)
    return settings


def _warn_about_local_stores(process: str, settings: Settings) -> None:
    """Warn that processes sharing SQLite or a local folder must run on one machine."""
    local = {
        "STORAGE=local": settings.storage is StorageKind.LOCAL,
        "SQLite": settings.database_url.startswith("sqlite"),
    }
    for name in [name for name, used in local.items() if used and process in SEPARATE_PROCESSES]:
        log.warning("every process has to run on this machine", action="one_machine", because=name)


def run(process: str, build: Callable[[Application], Service]) -> None:
    """Run one service until SIGTERM or SIGINT; a second signal has no effect.

    Exits with status 1 if the service cannot continue, so that a supervisor starts it again.
    """
    settings = settings_or_exit(process)
    drop_secrets()
    tracing.configure(settings.otel_exporter_otlp_endpoint, settings.otel_exporter_otlp_headers, process)
    try:
        failure = asyncio.run(_serve(process, settings, build))
    except SettingsError as error:
        sys.stderr.write(f"async-stt cannot start:\n{error}\n")
        raise SystemExit(2) from None
    if failure is not None:
        sys.stderr.write(f"async-stt {process} failed: {failure}\n")
        raise SystemExit(1)


@contextlib.asynccontextmanager
async def announced_as_ready(path: Path | None) -> AsyncIterator[None]:
    """Touch the file every READY_INTERVAL seconds during the block. A hung event loop lets it grow old."""
    tasks = PeriodicTasks()

    async def touch() -> None:
        assert path is not None
        await asyncio.to_thread(path.touch)

    if path is not None:
        tasks.start(READY_INTERVAL, touch, "ready file")
    try:
        yield
    finally:
        await tasks.stop()


async def _serve(process: str, settings: Settings, build: Callable[[Application], Service]) -> Exception | None:
    """Run the service; return the reason for which it could not continue, None after a signal."""
    application = bootstrap.build(settings)
    service = build(application)
    metrics = metrics_server(process, settings)
    metrics.start()
    starting = asyncio.create_task(service.start(), name=f"start {process}")
    stopping = asyncio.create_task(stop_event().wait(), name="wait for a signal")
    failing = asyncio.create_task(service.failed(), name="wait for a failure")
    await asyncio.wait([starting, stopping, failing], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        async with announced_as_ready(settings.ready_file):
            await asyncio.wait([stopping, failing], return_when=asyncio.FIRST_COMPLETED)
    else:
        starting.cancel()
    log.info("stopping", action="stopping", process=process)
    _limit_shutdown()
    metrics.stop()
    await service.stop()
    await application.stop()
    await asyncio.to_thread(tracing.stop)
    return failing.result() if failing.done() else None


def metrics_server(process: str, settings: Settings) -> MetricsServer:
    """Return the server of a process's metrics, without a port for the embedded service, whose API serves them."""
    ports = {"consumer": settings.consumer_metrics_port, "scheduler": settings.scheduler_metrics_port}
    return MetricsServer(settings.metrics_host, ports.get(process, 0), ProcessMetrics(settings))


def _limit_shutdown() -> None:
    """Exit STOP_TIMEOUT seconds from now with a log line, even if a thread hangs in the kernel."""

    def give_up() -> None:
        log.critical("shutdown timed out, exiting", action="stop_forced", seconds=STOP_TIMEOUT)
        os._exit(1)

    timer = threading.Timer(STOP_TIMEOUT, give_up)
    timer.daemon = True
    timer.start()


def stop_event() -> asyncio.Event:
    """Return an event that is set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
