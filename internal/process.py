"""What every process does the same way: read settings or say why not, log, run until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from core import logging
from core.config import BrokerKind, Settings, StorageKind, load_settings
from core.errors import SettingsError
from internal import bootstrap

log = structlog.get_logger(__name__)
STOP_SECONDS = 37.0
"""Seconds for the whole orderly end, less than `stop_grace_period` in deploy/compose.yaml."""


class Service(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...

    async def failed(self) -> Exception:
        """Return when the service cannot go on by itself, with the reason."""
        ...


SEPARATE = ("api", "consumer", "scheduler")
"""Processes that meet their work in a broker that others reach, too."""


def private_files() -> None:
    """Files and folders that this process and its children make are their owner's alone."""
    os.umask(0o077)


def close_to_others(data_dir: Path) -> None:
    """What an older version, or another umask, left readable to others in our own folder."""
    for path in (*data_dir.glob("stt.db*"), data_dir / "objects"):
        with contextlib.suppress(OSError):
            if path.stat().st_mode & 0o077:
                path.chmod(0o700 if path.is_dir() else 0o600)


def drop_secrets() -> None:
    """Remove secret settings from the environment once they are read: engine processes inherit what is left of it."""
    secret = {name.upper() for name, field in Settings.model_fields.items() if not field.repr}
    for name in [name for name in os.environ if name.upper() in secret]:
        del os.environ[name]


def settings_or_exit(process: str) -> Settings:
    """The settings, with logging configured; a bad setting ends the process with status 2 and its name."""
    private_files()
    try:
        settings = load_settings()
        _check_together(process, settings)
    except SettingsError as error:
        sys.stderr.write(f"async-stt cannot start:\n{error}\n")
        raise SystemExit(2) from None
    logging.configure_from(settings, process)
    _warn_of_one_machine(process, settings)
    close_to_others(Path(settings.data_dir))
    return settings


def _check_together(process: str, settings: Settings) -> None:
    """Raises SettingsError for a separate process on a queue that no other process sees."""
    if process in SEPARATE and settings.broker is BrokerKind.MEMORY:
        raise SettingsError(
            f"BROKER: memory is a queue inside one process, so a separate {process} shares it with nobody. "
            "Run everything in one process (`make run`, cmd/embedded/main.py), or set BROKER=rabbitmq and RABBITMQ_URL"
        )


def _warn_of_one_machine(process: str, settings: Settings) -> None:
    """SQLite and a folder serve several processes, though only where all of them see the same local disk."""
    local = {
        "STORAGE=local": settings.storage is StorageKind.LOCAL,
        "SQLite": settings.database_url.startswith("sqlite"),
    }
    for name in [name for name, used in local.items() if used and process in SEPARATE]:
        log.warning("every process has to be on this machine", action="one_machine", because=name)


def run(process: str, make: Callable[[bootstrap.Application], Service]) -> None:
    """Run one service until SIGTERM or SIGINT; a second signal is harmless.

    Ends with status 1 where the service cannot go on, so that a supervisor starts it again.
    """
    settings = settings_or_exit(process)
    drop_secrets()
    try:
        failure = asyncio.run(_serve(process, settings, make))
    except SettingsError as error:
        sys.stderr.write(f"async-stt cannot start:\n{error}\n")
        raise SystemExit(2) from None
    if failure is not None:
        sys.stderr.write(f"async-stt {process} ends: {failure}\n")
        raise SystemExit(1)


async def _serve(
    process: str, settings: Settings, make: Callable[[bootstrap.Application], Service]
) -> Exception | None:
    """Returns why the service could not go on; None: it was told to stop."""
    parts = bootstrap.build(settings)
    service = make(parts)
    told = stop_event()
    starting = asyncio.create_task(service.start(), name=f"start {process}")
    stopping = asyncio.create_task(told.wait(), name="wait for a signal")
    failing = asyncio.create_task(service.failed(), name="wait for a failure")
    await asyncio.wait([starting, stopping, failing], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        await asyncio.wait([stopping, failing], return_when=asyncio.FIRST_COMPLETED)
    else:
        starting.cancel()
    log.info("stopping", action="stopping", process=process)
    _limit_the_end()
    await service.stop()
    await parts.stop()
    return failing.result() if failing.done() else None


def _limit_the_end() -> None:
    """A thread that hangs in the kernel must not keep the process until its supervisor kills it without a word."""

    def give_up() -> None:
        log.critical("did not end in time, something hangs", action="stop_forced", seconds=STOP_SECONDS)
        os._exit(1)

    timer = threading.Timer(STOP_SECONDS, give_up)
    timer.daemon = True
    timer.start()


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told
