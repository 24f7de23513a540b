"""A timeout that counts working time only. It is paused while the work waits for a dependency."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar

_current: ContextVar[StepTimer | None] = ContextVar("step_timer", default=None)


class StepTimer:
    """Cancels a block after `seconds` of working time, or at once on `withdraw`. Created by `step_timer`."""

    def __init__(self, seconds: float) -> None:
        self._seconds_left = seconds
        self._timeout = asyncio.timeout(seconds)
        self._pauses = 0
        self._entered = False
        self.withdrawn = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Limit the block. Raises TimeoutError if it is cancelled."""
        try:
            async with self._timeout:
                self._entered = True
                yield
        finally:
            self._entered = False

    @property
    def expired(self) -> bool:
        return self._timeout.expired()

    def withdraw(self) -> None:
        """Cancel the block now. Has no effect once it has ended."""
        if self._entered and not self.expired:
            self.withdrawn = True
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def pause(self) -> None:
        self._pauses += 1
        when = self._timeout.when()
        if self._pauses == 1 and self._counting and when is not None:
            self._seconds_left = when - asyncio.get_running_loop().time()
            self._timeout.reschedule(None)

    def resume(self) -> None:
        self._pauses -= 1
        if not self._pauses and self._counting:
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds_left)

    @property
    def _counting(self) -> bool:
        return self._entered and not self.expired and not self.withdrawn


@contextlib.asynccontextmanager
async def step_timer(seconds: float) -> AsyncIterator[StepTimer]:
    """Limit the block to `seconds` of working time. Raises TimeoutError."""
    timer = StepTimer(seconds)
    token = _current.set(timer)
    try:
        async with timer.running():
            yield timer
    finally:
        _current.reset(token)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Pause the timer of the current step, if there is one, for the block."""
    timer = _current.get()
    if timer is None:
        yield
        return
    timer.pause()
    try:
        yield
    finally:
        timer.resume()
