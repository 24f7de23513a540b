"""Cancellation of tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel the tasks and wait until they end; their errors are ignored.

    Awaiting a cancelled task and suppressing CancelledError would also suppress the caller's own cancellation.
    """
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
        for task in running:
            if not task.cancelled():
                task.exception()  # mark as retrieved


@contextlib.contextmanager
def cancellation_as_connection_error() -> Iterator[None]:
    """Turn a CancelledError into a ConnectionError, unless the current task itself was cancelled.

    Some clients cancel their own futures when a connection breaks.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ConnectionError("the connection was closed") from error
