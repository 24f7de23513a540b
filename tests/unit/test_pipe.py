"""The pipe from the event loop to the uploading thread."""

from __future__ import annotations

import asyncio
import random

import pytest

from core.files import BLOCK_SIZE
from core.storage.pipe import MAX_BLOCKS, Aborted, Pipe


async def read_all(pipe: Pipe, size: int) -> list[bytes]:
    def read_pieces() -> list[bytes]:
        pieces = []
        while piece := pipe.read(size):
            pieces.append(piece)
        return pieces

    return await asyncio.to_thread(read_pieces)


@pytest.mark.parametrize("size", [1000, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 7])
async def test_reads_have_exactly_the_requested_size(size: int) -> None:
    data = random.Random(1).randbytes(6 * BLOCK_SIZE + 123)
    pipe = Pipe()
    reading = asyncio.create_task(read_all(pipe, size))
    for at in range(0, len(data), 300_001):
        await pipe.write(data[at : at + 300_001])
    await pipe.end()
    pieces = await reading
    assert {len(piece) for piece in pieces[:-1]} <= {size}
    assert b"".join(pieces) == data
    assert pipe.read(1) == b""


async def test_a_writer_waits_while_the_pipe_is_full() -> None:
    pipe = Pipe()
    await pipe.write(b"x" * (MAX_BLOCKS * BLOCK_SIZE))
    writing = asyncio.create_task(pipe.write(b"y" * BLOCK_SIZE))
    await asyncio.wait([writing], timeout=0.05)
    assert not writing.done()
    assert await asyncio.to_thread(pipe.read, BLOCK_SIZE) == b"x" * BLOCK_SIZE
    async with asyncio.timeout(5):
        await writing


async def test_a_waiting_writer_does_not_block_the_event_loop() -> None:
    pipe = Pipe()
    writing = asyncio.create_task(pipe.write(b"x" * (6 * BLOCK_SIZE)))
    iterations = 0
    while iterations < 100:
        await asyncio.sleep(0)
        iterations += 1
    assert not writing.done()
    pipe.reader_closed()
    with pytest.raises(Aborted):
        await writing


async def test_every_write_raises_after_the_reader_has_closed() -> None:
    """Regression: only as many writes raised as there were free blocks; the next one waited forever."""
    pipe = Pipe()
    waiting = asyncio.create_task(pipe.write(b"x" * (6 * BLOCK_SIZE)))
    await asyncio.sleep(0)
    pipe.reader_closed()
    async with asyncio.timeout(5):
        with pytest.raises(Aborted):
            await waiting
        for _ in range(3 * MAX_BLOCKS):
            with pytest.raises(Aborted):
                await pipe.write(b"x" * BLOCK_SIZE)
        with pytest.raises(Aborted):
            await pipe.end()


async def test_fail_wakes_a_waiting_reader() -> None:
    pipe = Pipe()
    reading = asyncio.create_task(asyncio.to_thread(pipe.read, 10))
    pipe.fail()
    async with asyncio.timeout(5):
        with pytest.raises(Aborted):
            await reading


async def test_a_cancelled_write_fails_the_reader() -> None:
    pipe = Pipe()
    writing = asyncio.create_task(pipe.write(b"x" * (6 * BLOCK_SIZE)))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.wait([writing])
    with pytest.raises(Aborted):
        await read_all(pipe, 8 * BLOCK_SIZE)
