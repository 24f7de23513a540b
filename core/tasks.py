"""Ending tasks without losing a cancellation of one's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks and wait for their end, whatever it is.

    Awaiting a cancelled task and suppressing CancelledError would also swallow the caller's own cancellation.
    """
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
        for task in running:
            if not task.cancelled():
                task.exception()  # seen


@contextlib.contextmanager
def cancellation_as_connection_error() -> Iterator[None]:
    """Turn a CancelledError into ConnectionError unless the current task was cancelled: some clients cancel their own
    futures when a connection breaks."""
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("The connection was closed meanwhile.") from error
