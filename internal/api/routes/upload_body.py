"""Streamed request bodies. A refused body leaves nothing in storage."""

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
"""Bytes that a form may contain besides its file."""
DRAIN_BYTES, DRAIN_SECONDS = 32 * 1024 * 1024, 5.0
"""Limits of reading on after a refusal, so that a client that is still sending sees the response and no reset."""


class UploadBody:
    """The body of one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._ended = False

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the non-empty pieces. Raises ClientDisconnect."""
        while not self._ended:
            message = await self._request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            # set before the piece is handled: if the last one is refused, there is nothing to drain
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
        """Read on for DRAIN_SECONDS, from the connection because the stream may be partly consumed."""
        left = DRAIN_BYTES
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(DRAIN_SECONDS):
                while left > 0 and not self._ended:
                    message = await self._request.receive()
                    left -= len(message.get("body", b""))
                    self._ended = message["type"] != "http.request" or not message.get("more_body")


async def check_content_length(request: Request, max_upload_bytes: int) -> None:
    """Check Content-Length before any byte is stored. Raises FileTooLargeError, after draining the body."""
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > max_upload_bytes + FORM_SLACK:
        await UploadBody(request).drain()
        raise file_too_large(max_upload_bytes)
