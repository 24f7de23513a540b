"""Functions that both adapters of the broker share."""

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
MAX_DELAY = float("inf")
"""Selects the longest configured delay."""


async def handle_delivery(body: bytes, redelivered: bool, headers: Mapping[str, Any], handler: Handler) -> Verdict:
    """Decode the message and call the handler. If the handler raises, the verdict is a retry with the longest delay.

    Raises CancelledError only.
    """
    try:
        message = decode(body)
    except UndecodableMessage as error:
        log.error("message cannot be decoded, dead-lettered", action="undecodable", reason=str(error))  # noqa: TRY400
        return DeadLetter(f"undecodable: {error}"[:500])
    except NewerMessage as error:
        log.warning("message of a newer version returned to the queue", action="newer_message", reason=str(error))
        return Retry(MAX_DELAY)
    try:
        return await handler(Delivery(message, redelivered, headers))
    except Exception:
        log.exception("handler failed, message returned to the queue", action="handler_raised", job_id=message.job_id)
        return Retry(MAX_DELAY)


async def wait_for_failure(task: asyncio.Task[None]) -> Exception:
    """Wait until a task that runs forever fails, and return its error. Never returns if the task is cancelled."""
    await asyncio.wait([task])
    if task.cancelled():
        await asyncio.Event().wait()
    error = task.exception()
    return error if isinstance(error, Exception) else RuntimeError(f"{task.get_name()} ended: {error!r}")


def pick_delay(delays: tuple[float, ...], minimum: float) -> float:
    """Return the shortest configured delay of at least `minimum` seconds, or the longest one."""
    return next((delay for delay in sorted(delays) if delay >= minimum), max(delays))


def normalize_delays(retry_delays: tuple[float, ...]) -> tuple[float, ...]:
    """Return the distinct delays in seconds, ascending; 2 s if there are none."""
    return tuple(sorted(set(retry_delays))) or (2.0,)
