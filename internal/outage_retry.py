"""Retries that wait out an outage of the database, the object storage or the broker."""

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
MAX_WAIT = 600.0
"""Seconds that an operation is retried while its dependency is down."""
MAX_WAIT_REACHABLE = 10.0
"""Seconds that an operation is retried while its dependency answers pings; then the operation itself is at fault."""
FIRST_DELAY, MAX_DELAY = 0.5, 10.0
"""Seconds between two attempts, doubled after each, with 20 % jitter."""
ATTEMPT_TIMEOUT = 1500.0
"""Seconds that one attempt may take."""


class OutageRetry:
    """Retries idempotent operations while a dependency is down, and holds back new work meanwhile.

    An outage does not count as a failure, nor waiting as working time of the step (`internal/step_timer.py`).
    """

    def __init__(
        self,
        max_wait: float = MAX_WAIT,
        *,
        pings: Mapping[type[InfrastructureError], Ping] | None = None,
        unrecoverable: Callable[[InfrastructureError], Exception | None] = lambda _: None,
    ) -> None:
        """max_wait: seconds after which an operation is given up.

        pings: a check of each dependency, by the error that its outage raises. New work is held back only while the
        check fails too; a dependency without a check counts as down after any such error.
        unrecoverable: returns the error to raise at once instead of retrying, or None.
        """
        self._max_wait = max_wait
        self._pings = pings or {}
        self._unrecoverable = unrecoverable
        self._outages: set[object] = set()
        self._available = asyncio.Event()
        self._available.set()

    async def ready(self) -> None:
        """Wait until no dependency is down."""
        await self._available.wait()

    async def run(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Call `operation` until it succeeds. Raises the last InfrastructureError after `max_wait` seconds."""
        with paused():
            try:
                return await _attempt(operation)
            except InfrastructureError as error:
                first_error = error
            self._raise_unrecoverable(first_error)
            reason = repr(first_error.__cause__ or first_error)
            log.warning("waiting for a dependency", action="waiting", code=first_error.code, reason=reason)
            outage, started = object(), asyncio.get_running_loop().time()
            try:
                result = await self._retry(operation, first_error, outage)
            finally:
                self._hold_back(outage, down=False)
            seconds = round(asyncio.get_running_loop().time() - started, 1)
            log.info("the dependency responds again", action="waited", code=first_error.code, seconds=seconds)
            return result

    async def _retry(self, operation: Callable[[], Awaitable[T]], error: InfrastructureError, outage: object) -> T:
        clock = asyncio.get_running_loop().time
        end, seconds_reachable, delay = clock() + self._max_wait, 0.0, FIRST_DELAY
        while True:
            down = await self._is_down(error)
            self._hold_back(outage, down=down)
            started = clock()
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            try:
                return await _attempt(operation)
            except InfrastructureError as next_error:
                error = next_error
            self._raise_unrecoverable(error)
            # reset by each outage: the operation gets the full time once its dependency is reachable again
            seconds_reachable = 0.0 if down else seconds_reachable + clock() - started
            if clock() > end or seconds_reachable > MAX_WAIT_REACHABLE:
                raise error
            delay = min(delay * 2, MAX_DELAY)

    async def _is_down(self, error: InfrastructureError) -> bool:
        ping = self._pings.get(type(error))
        if ping is None:
            return True
        try:
            await ping()
        except InfrastructureError:
            return True
        return False

    def _hold_back(self, outage: object, *, down: bool) -> None:
        if down:
            self._outages.add(outage)
        else:
            self._outages.discard(outage)
        if self._outages:
            self._available.clear()
        else:
            self._available.set()

    def _raise_unrecoverable(self, error: InfrastructureError) -> None:
        unrecoverable = self._unrecoverable(error)
        if unrecoverable is not None:
            raise unrecoverable from error


async def _attempt(operation: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(ATTEMPT_TIMEOUT) as timeout:
            return await operation()
    except TimeoutError as error:
        if timeout.expired():
            raise InfrastructureError from error
        raise
