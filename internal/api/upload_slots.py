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
        self._waiting: list[tuple[str | None, asyncio.Future[None]]] = []

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

    def _used(self) -> Counter[str | None]:
        """Return the number of slots by owner, granted ones included."""
        used = Counter(slot.owner for slot in self._taken)
        used.update(owner for owner, granted in self._waiting if granted.done())
        return used

    def _has_room(self, owner: str | None) -> bool:
        used = self._used()
        return used.total() < self._total and (owner is None or used[owner] < self._share)

    async def _wait(self, slot: UploadSlot) -> None:
        """Wait until the slot is granted, and take it before another waiter is woken."""
        if len(self._waiting) >= 4 * self._total:
            raise TooManyUploads
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (slot.owner, granted)
        admitted = False
        self._waiting.append(waiter)
        try:
            self._wake()
            async with asyncio.timeout(WAIT_TIMEOUT):
                while not granted.done():
                    self._end_slowest()
                    await asyncio.wait([granted], timeout=1)
            admitted = True
        except TimeoutError:
            if not granted.done():
                raise TooManyUploads from None
            admitted = True
        finally:
            self._waiting.remove(waiter)
            if admitted:
                self._taken.append(slot)
            self._wake()

    def _wake(self) -> None:
        """Grant the free slots, first to the owners with the fewest, then in order of arrival."""
        while True:
            used = self._used()
            waiting = [waiter for waiter in self._waiting if not waiter[1].done() and self._has_room(waiter[0])]
            if not waiting:
                return
            min(waiting, key=lambda waiter: used[waiter[0]])[1].set_result(None)

    def _end_slowest(self) -> None:
        """End the upload that is furthest behind the minimum rate, if that is at least PREEMPT_SECONDS."""
        slowest = max(self._taken, key=UploadSlot.seconds_behind, default=None)
        if slowest is not None and slowest.seconds_behind() >= PREEMPT_SECONDS:
            slowest.end()
