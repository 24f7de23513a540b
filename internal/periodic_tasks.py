"""Named side tasks with a watcher: one that ends or raises is logged and started again, never silently gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.errors import InfrastructureError
from core.tasks import cancel_and_wait

log = structlog.get_logger(__name__)


async def every(seconds: float, step: Callable[[], Awaitable[None]], name: str) -> None:
    """Call `step` for ever, `seconds` apart. An outage or a bug in one round does not end the rounds."""
    while True:
        try:
            await step()
        except InfrastructureError as error:
            log.warning("a part is down, next round later", action="round_skipped", task=name, code=error.code)
        except Exception:
            log.exception("round failed", action="round_failed", task=name)
        await asyncio.sleep(seconds)


class PeriodicTasks:
    """Starts named tasks and ends them together. `stop` is harmless twice and before any start."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, seconds: float, step: Callable[[], Awaitable[None]], name: str) -> None:
        self._tasks.append(asyncio.create_task(every(seconds, step, name), name=name))

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        await cancel_and_wait(*tasks)
