"""A timeout that counts working time only: it stands still while the work waits for a part of the service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar

_current: ContextVar[StepTimer | None] = ContextVar("step_timer", default=None)


class StepTimer:
    """Ends a block after `seconds` of working time, or at once by `withdraw`. Make one with `step_timer`."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._timeout = asyncio.timeout(seconds)
        self._pauses = 0
        self._open = False
        self.withdrawn = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Raises TimeoutError at the end of the block that was cut short."""
        try:
            async with self._timeout:
                self._open = True
                yield
        finally:
            self._open = False

    @property
    def expired(self) -> bool:
        return self._timeout.expired()

    def withdraw(self) -> None:
        """End the block now; harmless when it has ended."""
        if self._open and not self.expired:
            self.withdrawn = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def pause(self) -> None:
        self._pauses += 1
        when = self._timeout.when()
        if self._pauses == 1 and self._running and when is not None:
            self._left = when - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)

    def resume(self) -> None:
        self._pauses -= 1
        if not self._pauses and self._running:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._left)

    @property
    def _running(self) -> bool:
        return self._open and not self.expired and not self.withdrawn


@contextlib.asynccontextmanager
async def step_timer(seconds: float) -> AsyncIterator[StepTimer]:
    """Bound the block to `seconds` of working time. Raises TimeoutError."""
    timer = StepTimer(seconds)
    token = _current.set(timer)
    try:
        async with timer.running():
            yield timer
    finally:
        _current.reset(token)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Time in this block does not count for the step that runs it."""
    timer = _current.get()
    if timer is None:
        yield
        return
    timer.pause()
    try:
        yield
    finally:
        timer.resume()
