"""From an asynchronous writer to a reading thread: four blocks of one MiB at most are on the way."""

from __future__ import annotations

import asyncio
import queue

BLOCK = 1024 * 1024
BLOCKS = 4


class Aborted(Exception):
    """The writer gave up: the reading side gets this instead of more bytes."""


class Pipe:
    """Make it on the event loop; `read` belongs to one thread, everything else to the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(BLOCKS)
        self._blocks: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
        self._gathered = bytearray()
        self._left = b""
        self._ended = False
        self._reader_gone = False

    async def write(self, data: bytes) -> None:
        """Raises Aborted when the reader has gone."""
        self._gathered += data
        while len(self._gathered) >= BLOCK:
            block = bytes(self._gathered[:BLOCK])
            del self._gathered[:BLOCK]
            await self._send(block)

    async def end(self) -> None:
        if self._gathered:
            await self._send(bytes(self._gathered))
            self._gathered.clear()
        self._blocks.put(None)

    def fail(self) -> None:
        self._blocks.put(Aborted())

    def reader_gone(self) -> None:
        """Wake writers: nobody will read any more."""
        self._reader_gone = True
        for _ in range(BLOCKS):
            self._places.release()

    async def _send(self, block: bytes) -> None:
        await self._places.acquire()
        if self._reader_gone:
            raise Aborted
        self._blocks.put(block)

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, less only at the end; joined once, because short reads make the SDK quadratic."""
        pieces, have = [self._left], len(self._left)
        while have < size and not self._ended:
            block = self._blocks.get()
            if isinstance(block, Exception):
                raise block
            if block is None:
                self._ended = True
                break
            self._loop.call_soon_threadsafe(self._places.release)
            pieces.append(block)
            have += len(block)
        data = b"".join(pieces)
        self._left = data[size:]
        return data[:size]
