"""Outages of our own parts are waited out in place: nothing is counted, nothing new is taken meanwhile (design §5).

Time spent on a part is no working time: the step's timer stands still (`internal/step_timer.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog

from core.errors import InfrastructureError
from internal.step_timer import paused

log = structlog.get_logger(__name__)
T = TypeVar("T")
Ping = Callable[[], Awaitable[None]]
LONGEST = 600.0
"""Seconds a handler waits for a part before it hands its message back."""
ANSWERING = 10.0
"""The same for an operation that fails while its part answers pings: then it is not the part that is away."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
OPERATION = 1500.0
"""Seconds one call to a part may take before it counts as unanswered."""


class OutageRetry:
    """Repeats an idempotent operation while a part is down. `ready()` holds new work back until the part answers."""

    def __init__(
        self,
        longest: float = LONGEST,
        *,
        pings: Mapping[type[InfrastructureError], Ping] | None = None,
        hopeless: Callable[[InfrastructureError], Exception | None] = lambda _: None,
    ) -> None:
        """pings: ask a part by the error that names it. New work is held back only while the ping fails too; a part
        without one counts as down by the error alone. hopeless: an error to raise at once instead of waiting.
        """
        self._longest = longest
        self._pings = pings or {}
        self._hopeless = hopeless
        self._holding: set[object] = set()
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
            first = error
        self._check_hope(first)
        log.warning("waiting for a part", action="waiting", code=first.code, reason=repr(first.__cause__))
        waiter = object()
        try:
            return await self._repeat(operation, first, waiter)
        finally:
            self._hold(waiter, held=False)

    async def _repeat(self, operation: Callable[[], Awaitable[T]], error: InfrastructureError, waiter: object) -> T:
        clock = asyncio.get_running_loop().time
        end, answering, pause = clock() + self._longest, 0.0, FIRST_PAUSE
        while True:
            down = await self._is_down(error)
            self._hold(waiter, held=down)
            started = clock()
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            try:
                return await _attempt(operation)
            except InfrastructureError as again:
                error = again
            self._check_hope(error)
            # counted apart: once it answers again, a part that was away is given as long as any
            answering = 0.0 if down else answering + clock() - started
            if clock() > end or answering > ANSWERING:
                raise error
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _is_down(self, error: InfrastructureError) -> bool:
        ping = self._pings.get(type(error))
        if ping is None:
            return True
        try:
            await ping()
        except InfrastructureError:
            return True
        return False

    def _hold(self, waiter: object, *, held: bool) -> None:
        if held:
            self._holding.add(waiter)
        else:
            self._holding.discard(waiter)
        if self._holding:
            self._open.clear()
        else:
            self._open.set()

    def _check_hope(self, error: InfrastructureError) -> None:
        raised = self._hopeless(error)
        if raised is not None:
            raise raised from error


async def _attempt(operation: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(OPERATION) as limit:
            return await operation()
    except TimeoutError as error:
        if limit.expired():
            raise InfrastructureError from error
        raise
