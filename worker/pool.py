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
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from core.errors import ChunkTimeoutError, EngineUnavailableError, OutOfMemoryError, WhisperCrashError
from worker import pool_child
from worker.transcriber import EngineOutput, EngineSpec, Options

log = structlog.get_logger(__name__)
T = TypeVar("T")
CONSTS.term_timeout = 0.2  # seconds between SIGTERM, which our children ignore, and SIGKILL
UNANSWERED = 2.0
"""Seconds past the deadline: pebble's own clock starts when the child takes the call; a stopped one never does."""
START_SECONDS = 60.0
ANSWER_SECONDS = 20.0
"""Seconds an idle child has to answer before it is replaced."""
END_SECONDS = 10.0
"""Seconds for a child to end; one that the kernel does not let go of is left behind."""


def physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class _CallNotStarted(Exception):
    """The child was gone before it took the call: the call has not begun."""


class Slot:
    """One child process and its engine. Use it through `Pool.slot()`: one call at a time."""

    def __init__(self, adapter: str, threads: int, memory_limit: int) -> None:
        self._adapter, self._threads, self._memory_limit = adapter, threads, memory_limit
        self._pool: ProcessPool | None = None
        self._alive: tuple[Connection, Connection] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Return when the child answers; harmless twice. Raises EngineUnavailableError."""
        self._stopped = False
        if self._pool is not None:
            return
        try:
            await asyncio.to_thread(self._open)
            await self._call_once(START_SECONDS, pool_child.process_id)
        except (
            OSError,
            RuntimeError,
            _CallNotStarted,
            ChunkTimeoutError,
            WhisperCrashError,
            OutOfMemoryError,
        ) as error:
            await self._close()
            raise EngineUnavailableError from error
        except BaseException:
            await self._close()
            raise

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
        self._stopped = True
        await self._close()

    async def _close(self) -> None:
        """A process that does not end here ends by itself as soon as it can: its end of the pipe is closed."""
        pool, self._pool = self._pool, None
        pipe, self._alive = self._alive, None
        try:
            if pool is not None:
                async with asyncio.timeout(END_SECONDS):
                    await asyncio.to_thread(_end, pool)
        except (OSError, RuntimeError, TimeoutError) as error:
            log.warning("engine process not ended cleanly", action="engine_not_ended", reason=repr(error))
        finally:
            for end in pipe or ():
                end.close()

    async def restart(self) -> None:
        """A fresh process. Raises EngineUnavailableError; the next use tries again."""
        await self._close()
        await self.start()

    async def ensure(self) -> None:
        """Replace the child where it is gone or does not answer. Raises EngineUnavailableError."""
        if self._pool is not None:
            try:
                await self._call_once(ANSWER_SECONDS, pool_child.process_id)
            except (_CallNotStarted, ChunkTimeoutError, WhisperCrashError, OutOfMemoryError):
                log.warning("engine process was gone, starting another", action="engine_replaced")
                await self._close()
        await self.start()

    async def process_id(self) -> int:
        return await self._call(START_SECONDS, pool_child.process_id)

    async def transcribe(self, model: Path, pcm: bytes, options: Options, deadline: float) -> EngineOutput:
        """Transcribe 16 kHz mono s16le bytes within `deadline` seconds. Cancelling kills the child; it is made anew.

        Raises ChunkTimeoutError, WhisperCrashError (the child died), OutOfMemoryError (killed, but not by us, or an
        allocation failed), EngineUnavailableError, and what the engine raises: ModelMissingError,
        UnsupportedLanguageError, OSError.
        """
        spec = EngineSpec(self._adapter, model, self._threads)
        return await self._call(deadline, pool_child.transcribe, spec, pcm, options)

    async def _call(self, deadline: float, function: Callable[..., T], *arguments: Any) -> T:
        """A child that died idle costs the call nothing: it is made again with the next one."""
        if self._stopped:
            raise EngineUnavailableError
        try:
            if self._pool is not None:
                return await self._call_once(deadline, function, *arguments)
        except _CallNotStarted:
            log.warning("engine process died idle, starting another", action="engine_replaced")
        await self.restart()
        try:
            return await self._call_once(deadline, function, *arguments)
        except _CallNotStarted as error:
            raise EngineUnavailableError from error

    async def _call_once(self, deadline: float, function: Callable[..., T], *arguments: Any) -> T:
        future = self._schedule(deadline, function, *arguments)
        try:
            async with asyncio.timeout(deadline + UNANSWERED) as outage_retry:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if outage_retry.expired():
                await self._close()
            raise ChunkTimeoutError from error
        except ProcessExpired as error:
            log.error("engine process died", action="engine_died", exit_code=error.exitcode)  # noqa: TRY400
            # its pool goes too: a pipe or lock that the child held at that moment would stay as it was
            await self._close()
            raise (OutOfMemoryError if error.exitcode == -signal.SIGKILL else WhisperCrashError) from error
        except BrokenExecutor as error:
            await self._close()
            raise _CallNotStarted from error
        except MemoryError as error:
            raise OutOfMemoryError from error

    def _schedule(self, deadline: float, function: Callable[..., T], *arguments: Any) -> ProcessFuture[T]:
        """Raises _NotTaken where the pool is broken: its child or one of its threads is gone."""
        try:
            assert self._pool is not None
            return self._pool.schedule(function, args=arguments, timeout=deadline)
        except (RuntimeError, OSError) as error:
            raise _CallNotStarted from error


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
        self._withheld: set[asyncio.Task[None]] = set()
        self._started = False

    async def start(self) -> None:
        """Raises EngineUnavailableError; slots that could not be started are started at their first use."""
        if self._started:
            return
        self._started = True
        for slot in self._all:
            self._free.put_nowait(slot)
        await _run_all(slot.start for slot in self._all)

    async def stop(self) -> None:
        self._started = False
        for task in self._withheld:
            task.cancel()
        if self._withheld:
            await asyncio.wait(self._withheld)
        self._free = asyncio.Queue()
        await asyncio.gather(*(slot.stop() for slot in self._all))

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait, first come first served, for a free slot; its child is alive. Raises EngineUnavailableError."""
        slot = await self._free.get()
        try:
            await slot.ensure()
            yield slot
        finally:
            self._free.put_nowait(slot)

    async def ensure(self) -> None:
        """Replace the children of free slots that are gone. Raises EngineUnavailableError."""
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        try:
            await _run_all(slot.ensure for slot in free)
        finally:
            for slot in free:
                self._free.put_nowait(slot)

    def reduce_slots(self, seconds: float) -> None:
        """One slot fewer for that long, never under one. Call it while holding a slot: the next free one is parked."""
        if len(self._withheld) >= self.slots - 1:
            return
        # counted from here on: until a slot is free the park only waits for it
        task = asyncio.create_task(self._withhold_slot(seconds), name="park a slot")
        self._withheld.add(task)
        task.add_done_callback(self._withheld.discard)

    async def _withhold_slot(self, seconds: float) -> None:
        free = self._free
        slot = await free.get()
        log.warning("one slot fewer", action="pool_shrunk", seconds=seconds, slots=self.slots - len(self._withheld))
        try:
            await asyncio.sleep(seconds)
        finally:
            free.put_nowait(slot)

    async def process_ids(self) -> list[int]:
        return list(await asyncio.gather(*(slot.process_id() for slot in self._all)))


async def _run_all(steps: Any) -> None:
    """Run all of them to their end, then raise the first error."""
    results = await asyncio.gather(*(step() for step in steps), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
