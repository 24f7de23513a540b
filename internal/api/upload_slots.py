"""Upload slots, shared among owners, and the minimum rate at which an upload keeps its slot."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from core.errors import TooManyUploads, UploadTimeoutError

ALLOWANCE_SECONDS = 60.0
"""Seconds that a client may be silent or fall behind the minimum rate before its upload is ended."""
PREEMPT_SECONDS = 5.0
"""Seconds behind the minimum rate after which an upload loses its slot to a waiting one."""
WAIT_TIMEOUT = 15.0
"""Seconds that an upload waits for a slot."""


class UploadSlot:
    """The slot of one upload. Only time spent waiting for the client counts, not time spent on storage."""

    def __init__(self, owner: str | None, min_rate: float) -> None:
        """min_rate: bytes per second; with 0, one byte every ALLOWANCE_SECONDS is enough."""
        self.owner = owner
        self._min_rate = min_rate
        self._allowance = ALLOWANCE_SECONDS
        self._reading: asyncio.Timeout | None = None
        self._reading_since = 0.0
        self._ended = False

    def seconds_behind(self) -> float:
        """Return the seconds by which the client is behind the minimum rate, at most ALLOWANCE_SECONDS."""
        waiting = asyncio.get_running_loop().time() - self._reading_since if self._reading is not None else 0.0
        return ALLOWANCE_SECONDS - self._allowance + waiting

    def end(self) -> None:
        """Make the upload raise UploadTimeoutError as soon as it waits for its client."""
        self._ended = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def pieces(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the non-empty pieces. Raises UploadTimeoutError if the client is too slow."""
        iterator = aiter(body)
        while (data := await self._next(iterator)) is not None:
            if data:
                yield data

    async def _next(self, iterator: AsyncIterator[bytes]) -> bytes | None:
        loop = asyncio.get_running_loop()
        self._reading_since = loop.time()
        try:
            async with asyncio.timeout(0 if self._ended else self._allowance) as self._reading:
                data = await anext(iterator, None)
        except TimeoutError as error:
            raise UploadTimeoutError from error
        finally:
            self._reading = None
        self._allowance -= loop.time() - self._reading_since
        if data:
            gained = len(data) / self._min_rate if self._min_rate else ALLOWANCE_SECONDS
            self._allowance = min(ALLOWANCE_SECONDS, self._allowance + gained)
        return data


class UploadSlots:
    """At most `total` uploads at once. One owner gets at most three quarters of them, so that others find a slot."""

    def __init__(self, total: int, min_rate: float) -> None:
        self._total, self._min_rate = total, min_rate
        self._share = max(1, total - max(1, total // 4))
        self._taken: list[UploadSlot] = []
        self._waiting: list[tuple[UploadSlot, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def acquire(self, owner: str | None) -> AsyncIterator[UploadSlot]:
        """Hold a slot for the block. owner: None for the only user of this machine, who may use all slots.

        Raises TooManyUploads after WAIT_TIMEOUT seconds, or at once if too many wait already.
        """
        slot = UploadSlot(owner, self._min_rate)
        if self._waiting or not self._has_room(owner):
            await self._wait(slot)
        else:
            self._taken.append(slot)
        try:
            yield slot
        finally:
            self._taken.remove(slot)
            self._wake()

    def _has_room(self, owner: str | None) -> bool:
        used = Counter(slot.owner for slot in self._taken)
        return used.total() < self._total and (owner is None or used[owner] < self._share)

    async def _wait(self, slot: UploadSlot) -> None:
        """Wait until `_wake` has taken the slot. Raises TooManyUploads."""
        if len(self._waiting) >= 4 * self._total:
            raise TooManyUploads
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (slot, granted)
        self._waiting.append(waiter)
        try:
            self._wake()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_TIMEOUT):
                    while not granted.done():
                        self._end_slowest()
                        await asyncio.wait([granted], timeout=1)
        except BaseException:
            if granted.done():
                self._taken.remove(slot)
                self._wake()
            raise
        finally:
            if not granted.done():
                self._waiting.remove(waiter)
        if not granted.done():
            raise TooManyUploads

    def _wake(self) -> None:
        """Take the free slots for waiters, first for the owners with the fewest, then in order of arrival."""
        while True:
            used = Counter(slot.owner for slot in self._taken)
            admissible = [waiter for waiter in self._waiting if self._has_room(waiter[0].owner)]
            if not admissible:
                return
            waiter = min(admissible, key=lambda one: used[one[0].owner])
            self._waiting.remove(waiter)
            self._taken.append(waiter[0])
            waiter[1].set_result(None)

    def _end_slowest(self) -> None:
        """End the upload that is furthest behind the minimum rate, if that is at least PREEMPT_SECONDS."""
        slowest = max(self._taken, key=UploadSlot.seconds_behind, default=None)
        if slowest is not None and slowest.seconds_behind() >= PREEMPT_SECONDS:
            slowest.end()
