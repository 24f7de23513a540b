"""One process per slot, each a pebble pool of one, so that a crash, a hang or a kill costs one chunk and no other.

Children are spawned: fork and libgomp do not mix, and a pool shared by slots can lose its lock with a killed child.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pebble import CONSTS, ProcessExpired, ProcessPool

from core.errors import ChunkTimeoutError, OutOfMemoryError, WhisperCrashError
from worker import pool_child
from worker.transcriber import EngineSpec, Heard, Options

log = structlog.get_logger(__name__)
T = TypeVar("T")
CONSTS.term_timeout = 0.2  # seconds between SIGTERM, which our children ignore, and SIGKILL
UNANSWERED = 2.0
"""Seconds past the deadline: pebble's own clock starts when the child takes the call; a stopped one never does."""


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Slot:
    """One child process and its engine. Use it through `Pool.slot()`: one call at a time."""

    def __init__(self, adapter: str, threads: int, memory_limit: int) -> None:
        self._adapter, self._threads, self._memory_limit = adapter, threads, memory_limit
        self._pool: ProcessPool | None = None
        self._alive: tuple[Connection, Connection] | None = None

    async def start(self) -> None:
        """Returns when the child answers; harmless twice."""
        if self._pool is None:
            await asyncio.to_thread(self._open)
            await self._call(60.0, pool_child.process_id)

    def _open(self) -> None:
        self._alive = multiprocessing.Pipe(duplex=False)
        self._pool = ProcessPool(
            max_workers=1,
            context=multiprocessing.get_context("spawn"),
            initializer=pool_child.prepare,
            initargs=(self._alive[0], self._memory_limit),
        )

    async def stop(self) -> None:
        """End the child; harmless twice."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        await asyncio.to_thread(_end, pool)
        for end in self._alive or ():
            end.close()

    async def restart(self) -> None:
        """A fresh process."""
        await self.stop()
        await self.start()

    async def process_id(self) -> int:
        return await self._call(60.0, pool_child.process_id)

    async def transcribe(self, model: Path, pcm: bytes, options: Options, deadline: float) -> Heard:
        """Transcribe 16 kHz mono s16le bytes within `deadline` seconds. Cancelling kills the child; it is made anew.

        Raises ChunkTimeoutError, WhisperCrashError (the child died), OutOfMemoryError (killed, but not by us, or an
        allocation failed), and what the engine raises: ModelMissingError, UnsupportedLanguageError.
        """
        spec = EngineSpec(self._adapter, model, self._threads)
        return await self._call(deadline, pool_child.transcribe, spec, pcm, options)

    async def _call(self, deadline: float, function: Callable[..., T], *arguments: Any) -> T:
        if self._pool is None:
            raise WhisperCrashError("The pool is stopped.")
        future = self._pool.schedule(function, args=arguments, timeout=deadline)
        try:
            async with asyncio.timeout(deadline + UNANSWERED) as patience:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if patience.expired():
                await self.restart()
            raise ChunkTimeoutError from error
        except ProcessExpired as error:
            log.error("engine process died", action="engine_died", exit_code=error.exitcode)  # noqa: TRY400
            raise (OutOfMemoryError if error.exitcode == -signal.SIGKILL else WhisperCrashError) from error
        except MemoryError as error:
            raise OutOfMemoryError from error


def _end(pool: Any) -> None:
    pool.close()
    pool.stop()
    pool.join()


class Pool:
    """`slots` processes. `start` and `stop` are harmless when repeated."""

    def __init__(self, slots: int, adapter: str, threads: int = 1, memory_limit: int | None = None) -> None:
        """memory_limit: bytes of address space per child; by default nine tenths of the machine's memory."""
        limit = memory_limit if memory_limit is not None else physical_memory() * 9 // 10
        self.slots = slots
        self._all = [Slot(adapter, threads, limit) for _ in range(slots)]
        self._free: asyncio.Queue[Slot] = asyncio.Queue()
        self._parked: list[Slot] = []

    async def start(self) -> None:
        if self._free.empty() and not self._parked:
            await asyncio.gather(*(slot.start() for slot in self._all))
            for slot in self._all:
                self._free.put_nowait(slot)

    async def stop(self) -> None:
        self._free = asyncio.Queue()
        self._parked.clear()
        await asyncio.gather(*(slot.stop() for slot in self._all))

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Waits, first come first served, for a free slot."""
        slot = await self._free.get()
        try:
            yield slot
        finally:
            self._free.put_nowait(slot)

    def shrink(self, seconds: float) -> None:
        """One slot fewer for that long, never under one. Call it while holding a slot: a waiting one is parked."""
        if len(self._parked) >= self.slots - 1:
            return
        task = asyncio.create_task(self._park(seconds), name="park a slot")
        task.add_done_callback(lambda _: None)

    async def _park(self, seconds: float) -> None:
        slot = await self._free.get()
        self._parked.append(slot)
        log.warning("one slot fewer", action="pool_shrunk", seconds=seconds, slots=self.slots - len(self._parked))
        try:
            await asyncio.sleep(seconds)
        finally:
            self._parked.remove(slot)
            self._free.put_nowait(slot)

    async def process_ids(self) -> list[int]:
        return list(await asyncio.gather(*(slot.process_id() for slot in self._all)))
