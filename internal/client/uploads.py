"""Bodies of uploads: multipart forms whose file is read while it is sent."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import BinaryIO, Protocol

PIECE = 1024 * 1024
"""Bytes that are read and sent at once; memory does not depend on the size of the recording."""
Progress = Callable[[int, int | None], None]
"""Called with the bytes of the recording that were sent, and all of them (None: unknown)."""


class Recording(Protocol):
    """The bytes of an upload. size: None if unknown; repeatable: can be read again from its start."""

    size: int | None
    repeatable: bool

    def pieces(self) -> AsyncIterator[bytes]:
        """Read from the start."""
        ...


class ShortRecording(Exception):
    """The file has fewer bytes than at the start of the upload."""


class FileRecording:
    """An open, seekable binary file, from its current position. It is read in a thread."""

    repeatable = True

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._start = file, file.tell()
        self.size: int | None = file.seek(0, os.SEEK_END) - self._start

    async def pieces(self) -> AsyncIterator[bytes]:
        self._file.seek(self._start)
        left = self.size or 0
        while left:
            piece = await asyncio.to_thread(self._file.read, min(PIECE, left))
            if not piece:
                raise ShortRecording
            left -= len(piece)
            yield piece


class StreamRecording:
    """Pieces that can be read once, of unknown length."""

    size: int | None = None

    def __init__(self, stream: Iterable[bytes] | AsyncIterable[bytes]) -> None:
        self._stream = stream
        self.repeatable = True
        """Until the first piece has been read."""

    async def pieces(self) -> AsyncIterator[bytes]:
        self.repeatable = False
        if isinstance(self._stream, AsyncIterable):
            async for piece in self._stream:
                yield piece
            return
        iterator = iter(self._stream)

        def read() -> bytes | None:
            return next(iterator, None)

        while (following := await asyncio.to_thread(read)) is not None:
            yield following


class Form:
    """A multipart form with text fields, then the recording."""

    def __init__(
        self, fields: Mapping[str, str], name: str, recording: Recording, on_progress: Progress | None = None
    ) -> None:
        self._recording, self._on_progress = recording, on_progress
        boundary = secrets.token_hex(16)
        parts = [_part(boundary, f'name="{field}"') + value.encode() + b"\r\n" for field, value in fields.items()]
        file = f'name="file"; filename="{form_name(name)}"\r\nContent-Type: application/octet-stream'
        self._head = b"".join(parts) + _part(boundary, file)
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if recording.size is not None:
            self.headers["Content-Length"] = str(len(self._head) + recording.size + len(self._tail))

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._head
        sent, size = 0, self._recording.size
        async for piece in self._recording.pieces():
            if piece:
                yield piece
                sent += len(piece)
                if self._on_progress is not None:
                    self._on_progress(sent, size)
        yield self._tail


def _part(boundary: str, disposition: str) -> bytes:
    return f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode()


def form_name(name: str) -> str:
    """Return a file name that fits in a form: bytes that are not UTF-8, and control characters, are replaced."""
    name = name.encode(errors="surrogateescape").decode(errors="replace")
    name = "".join(letter if letter.isprintable() else "\ufffd" for letter in name)
    return name.replace("\\", "_").replace('"', "%22")
