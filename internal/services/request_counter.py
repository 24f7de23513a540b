"""Counters of requests per owner, in fixed windows of one minute."""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter

from core.database import Database
from repositories import rate_limits


class DatabaseStorage(Storage):
    """Storage of the `limits` library in the service's database, for counters shared by several processes."""

    STORAGE_SCHEME = None

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    @property
    def base_exceptions(self) -> type[Exception]:
        return Exception

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        async with self._database.write() as session:
            return await rate_limits.increment(session, key, expiry, amount, sqlite=self._database.sqlite)

    async def get(self, key: str) -> int:
        async with self._database.read() as session:
            window = await rate_limits.get(session, key)
        return window[0] if window else 0

    async def get_expiry(self, key: str) -> float:
        """Return the end of the window in seconds since 1970."""
        async with self._database.read() as session:
            window = await rate_limits.get(session, key)
        return window[1].timestamp() if window else time.time()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return None

    async def clear(self, key: str) -> None:
        async with self._database.write() as session:
            await rate_limits.delete(session, key)


class RequestCounter:
    """Counts of requests, in memory or in a database that several processes share."""

    def __init__(self, database: Database | None) -> None:
        storage: Storage = DatabaseStorage(database) if database is not None else MemoryStorage()
        self._window = FixedWindowRateLimiter(storage)

    async def count(self, owner: str, allowed: int) -> float | None:
        """Count a request; return None if it is one of the `allowed` per minute, else the seconds to wait."""
        item = RateLimitItemPerMinute(allowed)
        if await self._window.hit(item, owner):
            return None
        stats = await self._window.get_window_stats(item, owner)
        return max(1.0, math.ceil(stats.reset_time - time.time()))
