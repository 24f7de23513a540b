"""Named background tasks that run a step periodically. A failed round is logged and the next one runs as usual."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.errors import InfrastructureError
from core.metrics import ROUNDS
from core.tasks import cancel_and_wait

log = structlog.get_logger(__name__)


async def every(seconds: float, step: Callable[[], Awaitable[None]], name: str) -> None:
    """Call `step` in an endless loop, with `seconds` between rounds. Errors do not end the loop."""
    while True:
        outcome = "failed"
        try:
            await step()
            outcome = "ok"
        except InfrastructureError as error:
            outcome = "skipped"
            log.warning("round skipped, a dependency is down", action="round_skipped", task=name, code=error.code)
        except Exception:
            log.exception("round failed", action="round_failed", task=name)
        ROUNDS.labels(name, outcome).inc()
        await asyncio.sleep(seconds)


class PeriodicTasks:
    """Starts periodic tasks and stops them together. `stop` is idempotent."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, seconds: float, step: Callable[[], Awaitable[None]], name: str) -> None:
        self._tasks.append(asyncio.create_task(every(seconds, step, name), name=name))

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        await cancel_and_wait(*tasks)
