"""A request's body that is read as it arrives; what is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect

from core.errors import MalformedUploadError, UploadTimeoutError
from internal.bootstrap import Application
from internal.services import submissions
from internal.services.submissions import Intake

log = structlog.get_logger(__name__)
FORM_SLACK = 64 * 1024
"""Bytes that a form may have besides its file."""
DRAIN_BYTES, DRAIN_SECONDS = 32 * 1024 * 1024, 5.0
"""How much of a refused body is still read: a client that is writing sees the answer instead of a reset."""


class Body:
    """Knows whether all of it has been read."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        while not self._ended:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            # known before the piece is handled: a refusal of the last one has nothing left to drain
            self._ended = not message.get("more_body", False)
            if data := message.get("body"):
                yield data

    @contextlib.asynccontextmanager
    async def refusing(self, intake: Intake) -> AsyncIterator[None]:
        """An error inside removes what has arrived, and reads on for a moment."""
        try:
            yield
        except ClientDisconnect:
            await asyncio.shield(intake.discard())
            log.info("client hung up during the upload", action="upload_aborted", bytes=intake.size)
            raise MalformedUploadError("The upload was not completed. Send it again.") from None
        except UploadTimeoutError:
            await asyncio.shield(intake.discard())
            raise  # such a client gets no further seconds
        except BaseException:
            await asyncio.shield(intake.discard())
            await self.drain()
            raise

    async def drain(self) -> None:
        """Read on for a moment. The stream may be half read, so the rest is taken from the connection itself."""
        left = DRAIN_BYTES
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and not self._ended:
                    message = await self._request.receive()
                    left -= len(message.get("body", b""))
                    self._ended = message["type"] != "http.request" or not message.get("more_body")


async def refuse_stated(request: Request, parts: Application) -> None:
    """Raises FileTooLargeError on what Content-Length says, before the first byte is kept."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > parts.settings.max_upload_bytes + FORM_SLACK:
        await Body(request).drain()
        raise submissions.too_large(parts)
