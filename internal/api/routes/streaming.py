"""Responses that last as long as a job, or until the client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from internal.services.stream_limiter import StreamSlot

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`; cancel it and raise ClientDisconnect if the client disconnects.

    The request's body must have been read to its end, so that the next message can only be the disconnect.
    """

    async def wait_for_disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working = asyncio.create_task(work, name="wait for a job")
    disconnecting = asyncio.create_task(wait_for_disconnect(), name="watch the connection")
    try:
        await asyncio.wait({working, disconnecting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, disconnecting):
            task.cancel()
        await asyncio.gather(working, disconnecting, return_exceptions=True)


class JobStream(EventSourceResponse):
    """A stream of server-sent events that closes its generator and releases its slot however it ends."""

    def __init__(self, events: AsyncIterator[bytes], slot: StreamSlot, **options: Any) -> None:
        super().__init__(events, **options)
        self._events, self._slot = events, slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slot.release()
            if hasattr(self._events, "aclose"):
                with contextlib.suppress(RuntimeError):
                    await self._events.aclose()


def encode_event(data: Any, kind: str | None = None, number: int | None = None) -> bytes:
    """Return the wire format of an event with JSON data."""
    text = json.dumps(data, ensure_ascii=False)
    return format_sse_event(data_str=text, event=kind, id=None if number is None else str(number))
