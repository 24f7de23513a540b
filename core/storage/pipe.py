"""From an asynchronous writer to a reading thread: four blocks of one MiB at most are on the way."""

from __future__ import annotations

import asyncio
import io
import queue

BLOCK = 1024 * 1024
BLOCKS = 4


class Aborted(Exception):
    """One side gave up: the reader gets this instead of more bytes, the writer instead of more room."""


class Pipe:
    """Make it on the event loop; `read` belongs to one thread, everything else to the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(BLOCKS)
        self._blocks: queue.SimpleQueue[bytearray | Aborted | None] = queue.SimpleQueue()
        self._gathered = bytearray()
        self._left = memoryview(b"")
        self._ended = False
        self._reader_gone = False

    async def write(self, data: bytes) -> None:
        """Gather small pieces into blocks; wait for room without holding a thread. Raises Aborted.

        A cancelled write may have handed over a part of its bytes, so the reader is told to give up.
        """
        rest = memoryview(data)
        try:
            self._check()
            while rest:
                take = BLOCK - len(self._gathered)
                self._gathered += rest[:take]
                rest = rest[take:]
                if len(self._gathered) == BLOCK:
                    await self._flush()
        except asyncio.CancelledError:
            self.fail()
            raise

    async def end(self) -> None:
        """Raises Aborted."""
        self._check()
        if self._gathered:
            await self._flush()
        self._blocks.put(None)

    def fail(self) -> None:
        self._blocks.put(Aborted())

    def reader_closed(self) -> None:
        """Nobody will read any more: this write and every later one raises."""
        self._reader_gone = True
        self._room.release()

    def _check(self) -> None:
        if self._reader_gone:
            raise Aborted

    async def _flush(self) -> None:
        await self._room.acquire()
        if self._reader_gone:
            self._room.release()  # for the next who waits
            raise Aborted
        self._blocks.put(self._gathered)
        self._gathered = bytearray()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, less only at the end, because short reads make the SDK quadratic.

        Gathered in one buffer whose bytes are handed over uncopied: a list of blocks would stand beside their sum.
        """
        gathered = io.BytesIO()
        while size and self._more():
            piece, self._left = self._left[:size], self._left[size:]
            size -= gathered.write(piece)
        return gathered.getvalue()

    def _more(self) -> bool:
        """Wait for the next block where the last one is used up; False at the end. Raises Aborted."""
        if self._left or self._ended:
            return bool(self._left)
        block = self._blocks.get()
        if isinstance(block, Aborted):
            raise block
        if block is None:
            self._ended = True
            return False
        self._loop.call_soon_threadsafe(self._room.release)
        self._left = memoryview(block)
        return True
