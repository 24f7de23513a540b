"""Publish what a reopened job (replay, retry) or the scheduler's due rows stand for."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from core.messaging.port import Message
from internal.bootstrap import Parts
from internal.services import publishing
from repositories import jobs, parking, schedule
from repositories.claims import WakeUp

log = structlog.get_logger(__name__)
PUBLISH = "publish"


async def publish(parts: Parts, released: Sequence[WakeUp], level: int | None = None) -> bool:
    """Publish the wake-ups of these rows; False: not all went out, the scheduler publishes the rest.

    A row whose wake-up cannot be made is parked, the others go out. Raises DatabaseUnavailable.
    """
    async with parts.database.read() as session:
        found = await jobs.get_many(session, {row.job_id for row in released})
    messages: list[Message] = []
    for row in (row for row in released if row.job_id in found):
        try:
            message = publishing.message_for(found[row.job_id], row, level)
            message.encode()
        except Exception as error:  # noqa: BLE001
            await _park(parts, row, error)
        else:
            messages.append(message)
    return await parts.publisher.publish(messages)


async def _park(parts: Parts, row: WakeUp, error: Exception) -> None:
    async with parts.database.write() as session:
        pause = await parking.park(session, PUBLISH, f"{row.job_id}/{row.chunk_index}", repr(error))
        await schedule.postpone(session, [row], pause)
    log.error("row cannot be published, parked", action="parked", job_id=row.job_id, reason=repr(error), pause=pause)
