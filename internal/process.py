"""What every process does the same way: read settings or say why not, log, run until told to stop."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Protocol

import structlog

from core import logging
from core.config import Settings, load_settings
from core.errors import SettingsError
from internal import bootstrap

log = structlog.get_logger(__name__)


class Service(Protocol):
    async def start(self) -> None: ...
    async def stop(self) -> None: ...


def settings_or_exit(process: str) -> Settings:
    """The settings, with logging configured; a bad setting ends the process with status 2 and its name."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"async-stt cannot start:\n{error}\n")
        raise SystemExit(2) from None
    logging.configure_from(settings, process)
    return settings


def run(process: str, make: Callable[[bootstrap.Parts], Service]) -> None:
    """Run one service until SIGTERM or SIGINT; a second signal is harmless."""
    settings = settings_or_exit(process)
    try:
        asyncio.run(_serve(process, settings, make))
    except SettingsError as error:
        sys.stderr.write(f"async-stt cannot start:\n{error}\n")
        raise SystemExit(2) from None


async def _serve(process: str, settings: Settings, make: Callable[[bootstrap.Parts], Service]) -> None:
    parts = bootstrap.build(settings)
    service = make(parts)
    told = stop_event()
    starting = asyncio.create_task(service.start(), name=f"start {process}")
    stopping = asyncio.create_task(told.wait(), name="wait for a signal")
    await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        await stopping
    else:
        starting.cancel()
    log.info("stopping", action="stopping", process=process)
    await service.stop()
    await parts.stop()


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told
