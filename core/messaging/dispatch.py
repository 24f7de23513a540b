"""What both adapters do with a delivery: decode, hand to the handler, and come back with a verdict in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog

from core.messaging.port import (
    DeadLetter,
    Delivery,
    Handler,
    NewerMessage,
    Retry,
    UndecodableMessage,
    Verdict,
    decode,
)

log = structlog.get_logger(__name__)
LONGEST = float("inf")
"""A delay that means the longest there is."""


async def handle_delivery(body: bytes, redelivered: bool, headers: Mapping[str, Any], handler: Handler) -> Verdict:
    """Raises only CancelledError. A handler that raises has its message handed back, with the longest delay."""
    try:
        message = decode(body)
    except UndecodableMessage as error:
        log.error("undecodable message", action="undecodable", reason=str(error))  # noqa: TRY400
        return DeadLetter(f"undecodable: {error}"[:500])
    except NewerMessage as error:
        log.warning("message of a newer version handed back", action="newer_message", reason=str(error))
        return Retry(LONGEST)
    try:
        return await handler(Delivery(message, redelivered, headers))
    except Exception:
        log.exception("handler raised, message handed back", action="handler_raised", job_id=message.job_id)
        return Retry(LONGEST)


async def wait_for_failure(task: asyncio.Task[None]) -> Exception:
    """Why a task that should run for ever ended; never returns where it was cancelled, which is an orderly end."""
    await asyncio.wait([task])
    if task.cancelled():
        await asyncio.Event().wait()
    error = task.exception()
    return error if isinstance(error, Exception) else RuntimeError(f"{task.get_name()} ended: {error!r}")


def pick_delay(delays: tuple[float, ...], wanted: float) -> float:
    """The shortest configured delay that is long enough, else the longest."""
    return next((delay for delay in sorted(delays) if delay >= wanted), max(delays))


def normalize_delays(retry_delays: tuple[float, ...]) -> tuple[float, ...]:
    """There is always one, for hand-backs."""
    return tuple(sorted(set(retry_delays))) or (2.0,)
