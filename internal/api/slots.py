"""Upload slots, shared among owners, and the minimum rate at which an upload keeps its slot."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from core.errors import TooManyUploads, UploadTimeoutError

ALLOWANCE = 60.0
"""Seconds that a client may be silent or behind the minimum rate before its upload ends."""
BEHIND = 5.0
"""Seconds behind the minimum rate after which an upload gives its slot to one that waits."""
WAIT = 15.0
"""Seconds that an upload waits for a slot."""


class Slot:
    """One upload. Time counts only while the client is waited for, never while storage is."""

    def __init__(self, owner: str | None, min_rate: float) -> None:
        """min_rate: bytes a second; 0: a byte every ALLOWANCE seconds is enough."""
        self.owner = owner
        self._min_rate = min_rate
        self._allowance = ALLOWANCE
        self._reading: asyncio.Timeout | None = None
        self._since = 0.0
        self._ended = False

    def behind(self) -> float:
        """Seconds by which the client is behind the minimum rate, at most ALLOWANCE."""
        waiting = asyncio.get_running_loop().time() - self._since if self._reading is not None else 0.0
        return ALLOWANCE - self._allowance + waiting

    def end(self) -> None:
        """The upload raises UploadTimeoutError as soon as it waits for its client."""
        self._ended = True
        if self._reading is not None and not self._reading.expired():
            self._reading.reschedule(asyncio.get_running_loop().time())

    async def pieces(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces that are not empty. Raises UploadTimeoutError for a client that is too slow."""
        iterator = aiter(chunks)
        while (data := await self._next(iterator)) is not None:
            if data:
                yield data

    async def _next(self, iterator: AsyncIterator[bytes]) -> bytes | None:
        loop = asyncio.get_running_loop()
        self._since = loop.time()
        try:
            async with asyncio.timeout(0 if self._ended else self._allowance) as self._reading:
                data = await anext(iterator, None)
        except TimeoutError as error:
            raise UploadTimeoutError from error
        finally:
            self._reading = None
        self._allowance -= loop.time() - self._since
        if data:
            gained = len(data) / self._min_rate if self._min_rate else ALLOWANCE
            self._allowance = min(ALLOWANCE, self._allowance + gained)
        return data


class Slots:
    """At most `total` uploads at once; a known owner has at most three quarters of them, so that others find room."""

    def __init__(self, total: int, min_rate: float) -> None:
        self._total, self._min_rate = total, min_rate
        self._share = max(1, total - max(1, total // 4))
        self._taken: list[Slot] = []
        self._waiting: list[tuple[str | None, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def taken(self, owner: str | None) -> AsyncIterator[Slot]:
        """Hold a slot. owner: None where all callers are one, the person at this machine.

        Raises TooManyUploads after WAIT seconds, or at once where too many wait already.
        """
        slot = Slot(owner, self._min_rate)
        if self._waiting or not self._has_room(owner):
            await self._wait(owner)
        self._taken.append(slot)
        try:
            yield slot
        finally:
            self._taken.remove(slot)
            self._wake()

    def _has_room(self, owner: str | None) -> bool:
        held = Counter(slot.owner for slot in self._taken)
        promised = [who for who, wake in self._waiting if wake.done() and not wake.cancelled()]
        held.update(promised)
        return held.total() < self._total and (owner is None or held[owner] < self._share)

    async def _wait(self, owner: str | None) -> None:
        if len(self._waiting) >= 4 * self._total:
            raise TooManyUploads
        place = (owner, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            self._wake()
            async with asyncio.timeout(WAIT):
                while not place[1].done():
                    self._end_slowest()
                    await asyncio.wait([place[1]], timeout=1)
        except TimeoutError:
            if not place[1].done():
                raise TooManyUploads from None
        finally:
            self._waiting.remove(place)
            self._wake()

    def _wake(self) -> None:
        """Give what is free to those that wait: the owner with the fewest slots first, then the one that came first."""
        while True:
            held = Counter(slot.owner for slot in self._taken)
            waiting = [place for place in self._waiting if not place[1].done() and self._has_room(place[0])]
            if not waiting:
                return
            min(waiting, key=lambda place: held[place[0]])[1].set_result(None)

    def _end_slowest(self) -> None:
        """End the upload that is furthest behind the minimum rate, if any is noticeably."""
        slowest = max(self._taken, key=Slot.behind, default=None)
        if slowest is not None and slowest.behind() >= BEHIND:
            slowest.end()
