"""Rows that have lost several consumers run alone: what kills its consumer takes nobody else's work with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Quarantine:
    """Many may run `beside` each other; one runs `alone`, and nothing new starts while it waits or runs."""

    def __init__(self) -> None:
        self._beside = 0
        self._alone = asyncio.Lock()
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        async with self._alone:
            self._beside += 1
        try:
            yield
        finally:
            async with self._changed:
                self._beside -= 1
                self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._alone:
            async with self._changed:
                await self._changed.wait_for(lambda: self._beside == 0)
            yield
