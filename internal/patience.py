"""Outages of our own parts are waited out in place: nothing is counted, nothing new is taken meanwhile (design §5).

Time spent on a part is no working time: the step's timer stands still (`internal/step_timer.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from core.errors import InfrastructureError
from internal.step_timer import paused

log = structlog.get_logger(__name__)
T = TypeVar("T")
LONGEST = 600.0
"""Seconds a handler waits for a part before it hands its message back."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
OPERATION = 1500.0
"""Seconds one call to a part may take before it counts as unanswered."""


class Patience:
    """Repeats an idempotent operation while a part is down. `ready()` holds new work back until the part answers."""

    def __init__(self, longest: float = LONGEST) -> None:
        self._longest = longest
        self._waiting = 0
        self._open = asyncio.Event()
        self._open.set()

    async def ready(self) -> None:
        await self._open.wait()

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Call `operation` until it answers. Raises the last InfrastructureError after `longest` seconds."""
        with paused():
            return await self._run(operation)

    async def _run(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            return await _attempt(operation)
        except InfrastructureError as error:
            log.warning("waiting for a part", action="waiting", code=error.code, reason=repr(error.__cause__))
        self._waiting += 1
        self._open.clear()
        try:
            return await self._repeat(operation)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._open.set()

    async def _repeat(self, operation: Callable[[], Awaitable[T]]) -> T:
        end = asyncio.get_running_loop().time() + self._longest
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            try:
                return await _attempt(operation)
            except InfrastructureError:
                if asyncio.get_running_loop().time() > end:
                    raise
            pause = min(pause * 2, LONGEST_PAUSE)


async def _attempt(operation: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(OPERATION) as limit:
            return await operation()
    except TimeoutError as error:
        if limit.expired():
            raise InfrastructureError from error
        raise
