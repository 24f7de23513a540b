"""Pipe from an asynchronous writer to a reading thread, which buffers at most four blocks of 1 MiB."""

from __future__ import annotations

import asyncio
import io
import queue

from core.files import BLOCK_SIZE

MAX_BLOCKS = 4


class Aborted(Exception):
    """The other side of the pipe has aborted."""


class Pipe:
    """A pipe. It is created on the event loop. One thread calls `read`; all other calls are made on the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(MAX_BLOCKS)
        self._blocks: queue.SimpleQueue[bytearray | Aborted | None] = queue.SimpleQueue()
        self._buffer = bytearray()
        self._unread = memoryview(b"")
        self._ended = False
        self._reader_closed = False

    async def write(self, data: bytes) -> None:
        """Buffer the bytes in blocks; wait while the pipe is full. Raises Aborted.

        A cancelled write may have passed on some of its bytes, so it aborts the reader.
        """
        rest = memoryview(data)
        try:
            self._check()
            while rest:
                take = BLOCK_SIZE - len(self._buffer)
                self._buffer += rest[:take]
                rest = rest[take:]
                if len(self._buffer) == BLOCK_SIZE:
                    await self._flush()
        except asyncio.CancelledError:
            self.fail()
            raise

    async def end(self) -> None:
        """Signal the end of the data. Raises Aborted."""
        self._check()
        if self._buffer:
            await self._flush()
        self._blocks.put(None)

    def fail(self) -> None:
        """Make the reader raise Aborted."""
        self._blocks.put(Aborted())

    def reader_closed(self) -> None:
        """Make the current write and all later ones raise Aborted."""
        self._reader_closed = True
        self._room.release()

    def _check(self) -> None:
        if self._reader_closed:
            raise Aborted

    async def _flush(self) -> None:
        await self._room.acquire()
        if self._reader_closed:
            self._room.release()  # wake the next waiting write
            raise Aborted
        self._blocks.put(self._buffer)
        self._buffer = bytearray()

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end, since short reads make the SDK quadratic. Raises Aborted.

        One buffer is filled and returned without a copy; joining a list of blocks would double the memory.
        """
        buffer = io.BytesIO()
        while size and self._fill():
            part, self._unread = self._unread[:size], self._unread[size:]
            size -= buffer.write(part)
        return buffer.getvalue()

    def _fill(self) -> bool:
        """Wait for the next block if the last one has been read. Return False at the end. Raises Aborted."""
        if self._unread or self._ended:
            return bool(self._unread)
        block = self._blocks.get()
        if isinstance(block, Aborted):
            raise block
        if block is None:
            self._ended = True
            return False
        self._loop.call_soon_threadsafe(self._room.release)
        self._unread = memoryview(block)
        return True
