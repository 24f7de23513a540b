"""Limits of one owner: requests per minute, unfinished jobs, seconds of audio in them, bytes per day."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncSession

from core.config import Settings
from core.database import Database
from core.errors import QuotaExceededError, RateLimitedError
from repositories import intents, quotas

if TYPE_CHECKING:
    from internal.services.request_counter import RequestCounter

DAY = 86_400.0
RETRY_AFTER = 30.0
"""Seconds to wait if room depends on the end of other jobs, whose time is unknown."""


class Limiter:
    """Rate limits and quotas. Errors carry the seconds to wait."""

    def __init__(self, settings: Settings, database: Database, *, shared: bool) -> None:
        """shared: share the rate limits' counters with other processes, in the database."""
        self._settings, self._database, self._shared = settings, database, shared

    @cached_property
    def _counter(self) -> RequestCounter:
        # loaded for the first request that counts: a service without keys counts none
        from internal.services.request_counter import RequestCounter

        return RequestCounter(self._database if self._shared else None)

    async def count_request(self, owner: str) -> None:
        """Count one request. Raises RateLimitedError."""
        allowed = self._settings.rate_limit_per_minute
        if not allowed:
            return
        wait = await self._counter.count(owner, allowed)
        if wait is not None:
            raise RateLimitedError(
                "Rate limit of {limit} requests per minute exceeded. Retry in {seconds} s.",
                retry_after=wait,
                limit=allowed,
                seconds=round(wait),
            )

    async def check_quota(self, owner: str, size: int = 0) -> None:
        """Check the quotas early, for one more job of `size` bytes. Raises QuotaExceededError."""
        async with self._database.read() as session:
            await self._check(session, owner, size)

    async def enforce_quota(self, session: AsyncSession, owner: str, size: int = 0, seconds: float = 0.0) -> None:
        """Check the quotas in the transaction that adds the job, one at a time per owner. Raises QuotaExceededError.

        size: bytes of the recording; seconds: known duration of its audio.
        """
        settings = self._settings
        if settings.max_queued_jobs or settings.max_queued_seconds or settings.max_bytes_per_day:
            await quotas.lock_owner(session, owner, sqlite=self._database.sqlite)
            await self._check(session, owner, size, seconds)

    async def enforce_link_quota(self, session: AsyncSession, owner: str) -> None:
        """Check the quotas for one more upload link, counted as a job of maximum size. Raises QuotaExceededError."""
        settings = self._settings
        await quotas.lock_owner(session, owner, sqlite=self._database.sqlite)
        count = await intents.count_open_links(session, owner)
        if count >= settings.max_open_links > 0:
            raise QuotaExceededError(
                "Limit reached: {count} open upload links. Start some of them or wait until they expire.",
                retry_after=RETRY_AFTER,
                count=count,
            )
        await self._check(session, owner, settings.max_upload_bytes)

    async def _check(self, session: AsyncSession, owner: str, size: int, added_seconds: float = 0.0) -> None:
        settings = self._settings
        if settings.max_queued_jobs:
            queued = await quotas.count_open(session, owner) + await intents.count_open_links(session, owner)
            if queued >= settings.max_queued_jobs:
                raise QuotaExceededError(
                    "Limit reached: {count} unfinished jobs. Wait for jobs to finish.",
                    retry_after=RETRY_AFTER,
                    count=queued,
                )
        if settings.max_queued_seconds:
            seconds = await quotas.queued_seconds(session, owner)
            if seconds + added_seconds > settings.max_queued_seconds or seconds >= settings.max_queued_seconds:
                raise QuotaExceededError(
                    "Limit reached: {seconds} s of audio are queued. Wait for jobs to finish.",
                    retry_after=RETRY_AFTER,
                    seconds=round(seconds),
                )
        if settings.max_bytes_per_day:
            sent = await quotas.bytes_since(session, owner, DAY)
            reserved = await intents.count_open_links(session, owner) * settings.max_upload_bytes
            if sent + reserved + size > settings.max_bytes_per_day:
                wait = max(1.0, await quotas.resets_in(session, owner, DAY))
                raise QuotaExceededError(
                    "Limit reached: {sent} of {limit} bytes in 24 hours, open upload links included. "
                    "Retry in {seconds} s.",
                    retry_after=wait,
                    sent=sent + reserved,
                    limit=settings.max_bytes_per_day,
                    seconds=math.ceil(wait),
                )
