"""Answers that take as long as a job: they end when their client is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from internal.services.streams import Slot

T = TypeVar("T")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client hangs up: then raises ClientDisconnect.

    The request's body has been read to its end, so the next message can only be the disconnect.
    """
    working = asyncio.create_task(work, name="wait for a job")
    leaving = asyncio.create_task(_disconnected(request.receive), name="watch the connection")
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class JobStream(StreamingResponse):
    """A stream that closes its generator, and gives its place back, however it ends."""

    def __init__(self, lines: AsyncIterator[str], slot: Slot, **options: Any) -> None:
        super().__init__(lines, media_type="text/event-stream", **options)
        self._lines, self._slot = lines, slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._slot.leave()
            if hasattr(self._lines, "aclose"):
                with contextlib.suppress(RuntimeError):
                    await self._lines.aclose()
