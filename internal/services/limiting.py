"""How much one owner may ask for: requests a minute, unfinished jobs, seconds of sound in them, bytes a day."""

from __future__ import annotations

import math
import time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from sqlalchemy.ext.asyncio import AsyncSession

from core.config import Settings
from core.database import Database
from core.errors import QuotaExceededError, RateLimitedError
from repositories import intents, quotas, rate_limits

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
            return await rate_limits.increment(session, key, expiry, amount, sqlite=self._database.sqlite)

    async def get(self, key: str) -> int:
        async with self._database.read() as session:
            found = await rate_limits.get(session, key)
        return found[0] if found else 0

    async def get_expiry(self, key: str) -> float:
        """When the window ends, seconds since 1970."""
        async with self._database.read() as session:
            found = await rate_limits.get(session, key)
        return found[1].timestamp() if found else time.time()

    async def check(self) -> bool:
        return True

    async def reset(self) -> int | None:
        return None

    async def clear(self, key: str) -> None:
        async with self._database.write() as session:
            await rate_limits.delete(session, key)


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
                "Rate limit of {limit} requests per minute exceeded. Retry in {seconds} s.",
                retry_after=wait,
                limit=allowed,
                seconds=round(wait),
            )

    async def submit(self, owner: str, size: int = 0) -> None:
        """May the owner submit one more job of `size` bytes now? An early answer: `admit` is the one that holds."""
        async with self._database.read() as session:
            await self._check(session, owner, size)

    async def admit(self, session: AsyncSession, owner: str, size: int = 0, seconds: float = 0.0) -> None:
        """The same inside the transaction that adds the job, one owner's at a time, so that no two pass together.

        seconds: of sound that the job adds. Raises QuotaExceededError, which rolls the transaction back.
        """
        if self._limited:
            await quotas.lock_owner(session, owner, sqlite=self._database.sqlite)
            await self._check(session, owner, size, seconds)

    @property
    def _limited(self) -> bool:
        settings = self._settings
        return bool(settings.max_queued_jobs or settings.max_queued_seconds or settings.max_bytes_per_day)

    async def link(self, session: AsyncSession, owner: str) -> None:
        """May the owner open one more upload link? An open link counts as a job and as the largest upload."""
        settings = self._settings
        await quotas.lock_owner(session, owner, sqlite=self._database.sqlite)
        count = await intents.count_open_links(session, owner)
        if count >= settings.max_open_links > 0:
            raise QuotaExceededError(
                "Limit reached: {count} open upload links. Start some of them or wait until they expire.",
                retry_after=BUSY,
                count=count,
            )
        await self._check(session, owner, settings.max_upload_bytes)

    async def _check(self, session: AsyncSession, owner: str, size: int, more: float = 0.0) -> None:
        settings = self._settings
        if settings.max_queued_jobs:
            queued = await quotas.count_open(session, owner) + await intents.count_open_links(session, owner)
            if queued >= settings.max_queued_jobs:
                raise QuotaExceededError(
                    "Limit reached: {count} unfinished jobs. Wait for jobs to finish.", retry_after=BUSY, count=queued
                )
        if settings.max_queued_seconds:
            seconds = await quotas.queued_seconds(session, owner)
            if seconds + more > settings.max_queued_seconds or seconds >= settings.max_queued_seconds:
                raise QuotaExceededError(
                    "Limit reached: {seconds} s of audio are queued. Wait for jobs to finish.",
                    retry_after=BUSY,
                    seconds=round(seconds),
                )
        if settings.max_bytes_per_day:
            sent = await quotas.bytes_since(session, owner, DAY)
            promised = await intents.count_open_links(session, owner) * settings.max_upload_bytes
            if sent + promised + size > settings.max_bytes_per_day:
                wait = max(1.0, await quotas.resets_in(session, owner, DAY))
                raise QuotaExceededError("The bytes of this day are used up.", retry_after=wait)
