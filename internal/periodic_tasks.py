"""Named background tasks that run a step periodically. A failed round is logged and the next one runs as usual."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from core.errors import InfrastructureError
from core.metrics import ROUNDS
from core.repeated_line import RepeatedLine
from core.tasks import cancel_and_wait

log = structlog.get_logger(__name__)


class _Outage:
    """Log lines of the rounds that a dependency prevents: the first one, one a minute, and the end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines = RepeatedLine()

    def skipped(self, error: InfrastructureError) -> None:
        if self._lines.due():
            log.warning(
                "round skipped, a dependency is down; it continues by itself",
                action="round_skipped",
                task=self._name,
                code=error.code,
                reason=repr(error.__cause__ or error),
            )

    def ended(self) -> None:
        seconds = self._lines.end()
        if seconds is not None:
            log.info("rounds continue", action="rounds_continue", task=self._name, seconds=seconds)


async def every(seconds: float, step: Callable[[], Awaitable[None]], name: str) -> None:
    """Call `step` in an endless loop, with `seconds` between rounds. Errors do not end the loop."""
    outage = _Outage(name)
    while True:
        outcome = "failed"
        try:
            await step()
            outcome = "ok"
            outage.ended()
        except InfrastructureError as error:
            outcome = "skipped"
            outage.skipped(error)
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
