"""Engine processes. Each slot has a pebble pool with one process, so that a crash or hang affects one chunk only.

Processes are spawned, since libgomp does not support fork. Slots do not share a pool, since a killed process could
hold its lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from core.errors import ChunkTimeoutError, EngineUnavailableError, OutOfMemoryError, SttError, WhisperCrashError
from worker import pool_child
from worker.transcriber import EngineOutput, EngineSpec, Options

log = structlog.get_logger(__name__)
T = TypeVar("T")
CONSTS.term_timeout = 0.2  # seconds between SIGTERM, which the processes ignore, and SIGKILL
DEADLINE_GRACE = 2.0
"""Seconds after the deadline. pebble's timeout starts when the process accepts the call; a hung one never does."""
START_SECONDS = 60.0
"""Seconds for a new process to respond."""
PING_SECONDS = 20.0
"""Seconds for an idle process to respond before it is replaced."""
EXIT_SECONDS = 10.0
"""Seconds for a process to exit, after which it is abandoned."""


def physical_memory() -> int:
    """Return the memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class _CallNotStarted(Exception):
    """The process exited before it accepted the call."""


class Slot:
    """An engine process, obtained from `Pool.slot()`. It accepts one call at a time."""

    def __init__(self, adapter: str, threads: int, memory_limit: int) -> None:
        self._adapter, self._threads, self._memory_limit = adapter, threads, memory_limit
        self._pool: ProcessPool | None = None
        self._alive: tuple[Connection, Connection] | None = None
        self._stopped = False

    async def start(self) -> None:
        """Start the process and wait until it responds. Idempotent. Raises EngineUnavailableError."""
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
            initializer=pool_child.initialize,
            initargs=(self._alive[0], self._memory_limit),
        )

    async def stop(self) -> None:
        """Stop the process. Idempotent."""
        self._stopped = True
        await self._close()

    async def _close(self) -> None:
        """Stop the process. If it does not stop in time, the closed pipe makes it exit as soon as it can."""
        pool, self._pool = self._pool, None
        pipe, self._alive = self._alive, None
        try:
            if pool is not None:
                async with asyncio.timeout(EXIT_SECONDS):
                    await asyncio.to_thread(_stop, pool)
        except (OSError, RuntimeError, TimeoutError) as error:
            log.warning("engine process did not exit cleanly", action="engine_not_ended", reason=repr(error))
        finally:
            for end in pipe or ():
                end.close()

    async def restart(self) -> None:
        """Replace the process. Raises EngineUnavailableError; the next use starts it again."""
        await self._close()
        await self.start()

    async def ensure(self) -> None:
        """Replace the process if it has exited or does not respond. Raises EngineUnavailableError."""
        if self._pool is not None:
            try:
                await self._call_once(PING_SECONDS, pool_child.process_id)
            except (_CallNotStarted, ChunkTimeoutError, WhisperCrashError, OutOfMemoryError):
                log.warning("engine process lost, starting another", action="engine_replaced")
                await self._close()
        await self.start()

    async def transcribe(self, model: Path, pcm: bytes, options: Options, deadline: float) -> EngineOutput:
        """Transcribe 16 kHz mono s16le PCM within `deadline` seconds. A cancellation replaces the process.

        Raises ChunkTimeoutError, WhisperCrashError (the process exited), OutOfMemoryError (the system killed it, or an
        allocation failed), EngineUnavailableError, and from the engine ModelMissingError, UnsupportedLanguageError and
        OSError.
        """
        spec = EngineSpec(self._adapter, model)
        [output] = await self._call(deadline, pool_child.transcribe, spec, [(pcm, options)], self._threads)
        if isinstance(output, SttError):
            raise output
        return output

    async def _call(self, deadline: float, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function in the process. If that exited while idle, call it in a new one."""
        if self._stopped:
            raise EngineUnavailableError
        try:
            if self._pool is not None:
                return await self._call_once(deadline, function, *arguments)
        except _CallNotStarted:
            log.warning("engine process exited while idle, starting another", action="engine_replaced")
        await self.restart()
        try:
            return await self._call_once(deadline, function, *arguments)
        except _CallNotStarted as error:
            raise EngineUnavailableError from error

    async def _call_once(self, deadline: float, function: Callable[..., T], *arguments: Any) -> T:
        """Call the function in the current process. Raises _CallNotStarted, and the errors of `transcribe`."""
        future = self._schedule(deadline, function, *arguments)
        try:
            async with asyncio.timeout(deadline + DEADLINE_GRACE) as timeout:
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            if timeout.expired():
                await self._close()
            raise ChunkTimeoutError from error
        except ProcessExpired as error:
            log.error("engine process exited", action="engine_died", exit_code=error.exitcode)  # noqa: TRY400
            # the pool is replaced as well, since the process may have held its pipe or lock
            await self._close()
            raise (OutOfMemoryError if error.exitcode == -signal.SIGKILL else WhisperCrashError) from error
        except BrokenExecutor as error:
            await self._close()
            raise _CallNotStarted from error
        except MemoryError as error:
            raise OutOfMemoryError from error

    def _schedule(self, deadline: float, function: Callable[..., T], *arguments: Any) -> ProcessFuture[T]:
        """Schedule the call. Raises _CallNotStarted if the pool has lost its process or a thread."""
        try:
            assert self._pool is not None
            return self._pool.schedule(function, args=arguments, timeout=deadline)
        except (RuntimeError, OSError) as error:
            raise _CallNotStarted from error


def _stop(pool: Any) -> None:
    pool.close()
    pool.stop()
    pool.join()


class Pool:
    """A pool of `slots` engine processes. `start` and `stop` are idempotent."""

    def __init__(self, slots: int, adapter: str, threads: int = 1, memory_limit: int | None = None) -> None:
        """memory_limit: bytes of address space per process; by default 90 % of the machine's memory."""
        limit = memory_limit if memory_limit is not None else physical_memory() * 9 // 10
        self.slots = slots
        self._slots = [Slot(adapter, threads, limit) for _ in range(slots)]
        self._free: asyncio.Queue[Slot] = asyncio.Queue()
        self._withheld: set[asyncio.Task[None]] = set()
        self._started = False

    async def start(self) -> None:
        """Start all slots. Raises EngineUnavailableError if any fails; it is started again at its first use."""
        if self._started:
            return
        self._started = True
        for slot in self._slots:
            self._free.put_nowait(slot)
        await _run_all(slot.start for slot in self._slots)

    async def stop(self) -> None:
        self._started = False
        for task in self._withheld:
            task.cancel()
        if self._withheld:
            await asyncio.wait(self._withheld)
        self._free = asyncio.Queue()
        await asyncio.gather(*(slot.stop() for slot in self._slots))

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for a free slot in FIFO order and ensure that its process responds. Raises EngineUnavailableError."""
        free = self._free  # `stop` replaces the queue, and a later `start` fills the new one
        slot = await free.get()
        try:
            await slot.ensure()
            yield slot
        finally:
            free.put_nowait(slot)

    async def ensure(self) -> None:
        """Replace lost processes of free slots. Raises EngineUnavailableError."""
        free = [self._free.get_nowait() for _ in range(self._free.qsize())]
        try:
            await _run_all(slot.ensure for slot in free)
        finally:
            for slot in free:
                self._free.put_nowait(slot)

    def reduce_slots(self, seconds: float) -> None:
        """Withhold the next free slot for `seconds`, but never the last one."""
        if len(self._withheld) >= self.slots - 1:
            return
        # the task counts immediately, although it has to wait for a free slot
        task = asyncio.create_task(self._withhold_slot(seconds), name="withhold a slot")
        self._withheld.add(task)
        task.add_done_callback(self._withheld.discard)

    async def _withhold_slot(self, seconds: float) -> None:
        free = self._free
        slot = await free.get()
        log.warning(
            "pool reduced by one slot", action="pool_shrunk", seconds=seconds, slots=self.slots - len(self._withheld)
        )
        try:
            await asyncio.sleep(seconds)
        finally:
            free.put_nowait(slot)


async def _run_all(calls: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Run all calls concurrently until the last one ends, then raise the first error."""
    results = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
