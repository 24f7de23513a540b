"""Database transactions that wait out an outage."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from core.database import Database
from internal.outage_retry import OutageRetry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryingDatabase:
    """Transactions that are repeated while the database is down. They have to be idempotent."""

    database: Database
    outage_retry: OutageRetry

    async def read(self, query: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run `query` in a read transaction. Raises DatabaseUnavailable once the retries are used up."""

        async def attempt() -> T:
            async with self.database.read() as session:
                return await query(session)

        return await self.outage_retry.run(attempt)

    async def write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Run `work` in a write transaction. Raises DatabaseUnavailable once the retries are used up."""

        async def attempt() -> T:
            async with self.database.write() as session:
                return await work(session)

        return await self.outage_retry.run(attempt)
