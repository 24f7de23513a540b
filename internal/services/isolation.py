"""Housekeeping on many items: one that fails is parked and the others go on; an outage stops all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from core.errors import InfrastructureError
from internal.bootstrap import Application
from repositories import parking

log = structlog.get_logger(__name__)


async def each(parts: Application, step: str, items: Sequence[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Call `work` with every item. Raises InfrastructureError where database or storage are away altogether."""
    for item in items:
        try:
            await work(item)
        except Exception as error:  # noqa: BLE001
            if isinstance(error, InfrastructureError):
                # an error of one object looks the same as an outage: only a failing ping is one
                await parts.database.ping()
                await parts.storage.ping()
            await _park(parts, step, item, error)
        else:
            async with parts.database.write() as session:
                await parking.unpark(session, step, item)


async def _park(parts: Application, step: str, item: str, error: Exception) -> None:
    async with parts.database.write() as session:
        pause = await parking.park(session, step, item, repr(error))
    log.error("item failed, parked", action="parked", step=step, item=item, reason=repr(error), pause=pause)
