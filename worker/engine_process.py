"""Engine processes. Each is a pebble pool of one process, so that a crash or hang affects its own calls only.

Processes are spawned, since libgomp does not support fork. They do not share a pool, since a killed process could hold
its lock.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import structlog
from pebble import CONSTS, ProcessExpired, ProcessFuture, ProcessPool

from core.errors import ChunkTimeoutError, EngineUnavailableError, OutOfMemoryError, SttError, WhisperCrashError
from worker import pool_child
from worker.engine_variants import Variant
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


class _CallNotStarted(Exception):
    """The process exited before it accepted the call."""


class EngineProcess:
    """A process with one loaded engine. It accepts one call at a time.

    model: the model file of the last call; batch_size: the engine's, known once the process has started.
    """

    def __init__(self, variant: Variant | None, memory_limit: int) -> None:
        """variant: None if `select` follows before the first call; memory_limit: bytes of address space."""
        self.model: Path | None = None
        self.batch_size: int | None = None
        self._variant, self._memory_limit = variant, memory_limit
        self._pool: ProcessPool | None = None
        self._alive: tuple[Connection, Connection] | None = None
        self._stopped = False

    async def select(self, variant: Variant) -> None:
        """Use another variant from now on, in a new process: a process can load one build of an engine."""
        if variant != self._variant:
            await self._close()
            self._variant, self.batch_size = variant, None

    async def start(self) -> None:
        """Start the process and wait until it has imported the engine. Idempotent. Raises EngineUnavailableError.

        Without a variant there is nothing to start yet.
        """
        self._stopped = False
        if self._pool is not None or self._variant is None:
            return
        try:
            await asyncio.to_thread(self._open)
            self.batch_size = await self._call_once(START_SECONDS, pool_child.batch_size, self._variant.engine)
        except Exception as error:
            log.warning("engine process does not start", action="engine_not_started", reason=repr(error))
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

    async def transcribe(
        self, model: Path, calls: Sequence[tuple[bytes, Options]], threads: int, deadline: float
    ) -> list[EngineOutput | SttError]:
        """Transcribe calls, each with 16 kHz mono s16le PCM; return an output or error for each.

        deadline: seconds for all calls. A cancellation replaces the process. Raises ChunkTimeoutError,
        WhisperCrashError (the process exited), OutOfMemoryError (the system killed it, or an allocation failed),
        EngineUnavailableError, and from loading the engine ModelMissingError and OSError.
        """
        assert self._variant is not None
        self.model = model
        spec = EngineSpec(self._variant.engine, model, self._variant.build)
        return await self._call(deadline, pool_child.transcribe, spec, list(calls), threads)

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
