"""Isolation of rows that have lost several consumers: they run alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Quarantine:
    """A shared/exclusive lock. A waiting exclusive holder blocks new shared holders."""

    def __init__(self) -> None:
        self._shared_holders = 0
        self._gate = asyncio.Lock()
        self._released = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._gate:
            self._shared_holders += 1
        try:
            yield
        finally:
            async with self._released:
                self._shared_holders -= 1
                self._released.notify_all()

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        async with self._gate:
            async with self._released:
                await self._released.wait_for(lambda: self._shared_holders == 0)
            yield
