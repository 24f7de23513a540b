"""Slots of a pool, each a place for one chunk, given out in FIFO order."""

from __future__ import annotations

import asyncio
from collections import deque


class Slots:
    """A counter of taken places with a limit that may change.

    preparing: taken places whose call has not come yet; settling: places whose call has ended, and whose next call
    probably comes soon.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken = self.preparing = self.settling = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def acquire(self) -> None:
        """Wait for a place and take it."""
        if self.taken < self.limit and not self._waiters:
            self._take()
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.preparing -= 1
                self.release()
            raise

    def release(self) -> None:
        self.taken -= 1
        self._hand_out()

    def set_limit(self, limit: int) -> None:
        """Change the limit. Places that are taken beyond it are not given out again."""
        self.limit = limit
        self._hand_out()

    def _hand_out(self) -> None:
        while self._waiters and self.taken < self.limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                # the place counts as taken before its waiter runs
                self._take()
                waiter.set_result(None)

    def _take(self) -> None:
        self.taken += 1
        self.preparing += 1
