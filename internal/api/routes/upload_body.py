"""Request bodies that are read as they arrive. A refused body leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect

from core.errors import MalformedUploadError, UploadTimeoutError
from internal.services.incoming_upload import IncomingUpload, file_too_large

log = structlog.get_logger(__name__)
FORM_SLACK = 64 * 1024
"""Bytes that a form may have besides its file."""
DRAIN_BYTES, DRAIN_SECONDS = 32 * 1024 * 1024, 5.0
"""Limits of reading on after a refusal: a client that is still writing sees the response instead of a reset."""


class UploadBody:
    """The body of one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the pieces that are not empty. Raises ClientDisconnect."""
        while not self._ended:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            # set before the piece is handled: after a refusal of the last one there is nothing to drain
            self._ended = not message.get("more_body", False)
            if data := message.get("body"):
                yield data

    @contextlib.asynccontextmanager
    async def discarding(self, upload: IncomingUpload) -> AsyncIterator[None]:
        """Discard the upload and drain the body if the block raises."""
        try:
            yield
        except ClientDisconnect:
            await asyncio.shield(upload.discard())
            log.info("client disconnected during the upload", action="upload_aborted", bytes=upload.size)
            raise MalformedUploadError("The upload was not completed. Send it again.") from None
        except UploadTimeoutError:
            await asyncio.shield(upload.discard())
            raise  # without draining: the client has used up its time
        except BaseException:
            await asyncio.shield(upload.discard())
            await self.drain()
            raise

    async def drain(self) -> None:
        """Read on for DRAIN_SECONDS, from the connection itself because the stream may be half read."""
        left = DRAIN_BYTES
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and not self._ended:
                    message = await self._request.receive()
                    left -= len(message.get("body", b""))
                    self._ended = message["type"] != "http.request" or not message.get("more_body")


async def check_content_length(request: Request, max_upload_bytes: int) -> None:
    """Raises FileTooLargeError if Content-Length exceeds the limit, before any byte is stored."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > max_upload_bytes + FORM_SLACK:
        await UploadBody(request).drain()
        raise file_too_large(max_upload_bytes)
