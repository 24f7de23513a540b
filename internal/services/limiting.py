"""How much one owner may ask for: requests a minute, unfinished jobs, seconds of sound in them, bytes a day."""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter

from core.config import Settings
from core.database import Database
from core.errors import QuotaExceededError, RateLimitedError
from repositories import jobs, rate_limits

DAY = 86_400.0
BUSY = 30.0
"""Seconds to wait where only finished work makes room, which nobody can foretell."""


class DatabaseStorage(Storage):
    """The library's storage on our own database: counters that several processes share."""

    STORAGE_SCHEME = None

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database

    @property
    def base_exceptions(self) -> type[Exception]:
        return Exception

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        async with self._database.write() as session:
            return await rate_limits.count(session, key, expiry, amount, sqlite=self._database.sqlite)

    async def get(self, key: str) -> int:
        async with self._database.read() as session:
            found = await rate_limits.read(session, key)
        return found[0] if found else 0

    async def get_expiry(self, key: str) -> float:
        """When the window ends, seconds since 1970."""
        async with self._database.read() as session:
            found = await rate_limits.read(session, key)
        return found[1].timestamp() if found else time.time()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return None

    async def clear(self, key: str) -> None:
        async with self._database.write() as session:
            await rate_limits.clear(session, key)


class Limiter:
    """Raises RateLimitedError or QuotaExceededError with the seconds to wait."""

    def __init__(self, settings: Settings, database: Database, *, shared: bool) -> None:
        """shared: several processes count together."""
        storage: Storage = DatabaseStorage(database) if shared else MemoryStorage()
        self._window = FixedWindowRateLimiter(storage)
        self._settings, self._database = settings, database

    async def request(self, owner: str) -> None:
        """Count one request."""
        allowed = self._settings.rate_limit_per_minute
        if not allowed:
            return
        item = RateLimitItemPerMinute(allowed)
        if not await self._window.hit(item, owner):
            stats = await self._window.get_window_stats(item, owner)
            wait = max(1.0, math.ceil(stats.reset_time - time.time()))
            raise RateLimitedError(
                "More than {limit} requests a minute. Wait {seconds} s.",
                retry_after=wait,
                limit=allowed,
                seconds=round(wait),
            )

    async def submit(self, owner: str, size: int = 0) -> None:
        """May the owner submit one more job of `size` bytes now?"""
        settings = self._settings
        async with self._database.read() as session:
            queued = await jobs.unfinished(session, owner) if settings.max_queued_jobs else 0
            seconds = await jobs.queued_seconds(session, owner) if settings.max_queued_seconds else 0.0
            sent = await jobs.bytes_since(session, owner, DAY) if settings.max_bytes_per_day else 0
        if queued >= settings.max_queued_jobs > 0:
            raise QuotaExceededError("{count} jobs are unfinished, as many as allowed.", retry_after=BUSY, count=queued)
        if seconds >= settings.max_queued_seconds > 0:
            raise QuotaExceededError(
                "{seconds} s of sound are waiting, as much as allowed.", retry_after=BUSY, seconds=round(seconds)
            )
        if settings.max_bytes_per_day and sent + size > settings.max_bytes_per_day:
            raise QuotaExceededError("The bytes of this day are used up.", retry_after=await self._oldest_leaves(owner))

    async def _oldest_leaves(self, owner: str) -> float:
        """Seconds until the oldest of the day's recordings no longer counts."""
        async with self._database.read() as session:
            return max(1.0, await jobs.oldest_leaves(session, owner, DAY))
