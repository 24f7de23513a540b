"""The pool of engine processes: it gives each chunk a slot, and the calls of the slots to the processes.

A call starts at once in an idle process, the most recently used one with its model. Calls that arrive while all
processes work form the next batches. A call that was in a batch that failed runs again alone, so that each error
belongs to its own call.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from core.errors import ChunkTimeoutError, EngineUnavailableError, Kind, OutOfMemoryError, SttError
from core.machine import physical_memory
from core.tasks import cancel_and_wait
from worker.batch import Mode, Outputs, Request, transcribe_batch
from worker.engine_choice import EngineChoices
from worker.engine_process import EngineProcess
from worker.slots import Slots
from worker.thread_budget import ThreadBudget
from worker.transcriber import EngineOutput, Options

log = structlog.get_logger(__name__)
LINGER_SECONDS = 0.05
"""Seconds that an idle process waits at most for calls that are being prepared, if there are too few processes."""
REFILL_SECONDS = 0.01
"""Seconds after its release in which a slot is expected to be taken again."""
HEAD_START = 10.0
"""Seconds by which a call precedes those of the next lower level."""
HALVED_SECONDS = 600.0
"""Seconds for which batches are half as large after one ran out of memory or time."""


class Slot:
    """A place for one chunk, obtained from `Pool.slot()`. It accepts one call at a time."""

    def __init__(self, pool: Pool, slots: Slots) -> None:
        self._pool, self._slots = pool, slots
        self._used = False

    async def transcribe(
        self,
        model: Path,
        pcm: bytes,
        options: Options,
        deadline: float,
        *,
        mode: Mode = Mode.BATCH,
        level: int = 0,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> EngineOutput:
        """Transcribe 16 kHz mono s16le PCM within `deadline` seconds after its turn has come.

        level: higher ones precede; waiting: context in which the call waits for its turn, and for an engine trial. A
        cancelled call that ran alone ends its process, one in a batch leaves the others to finish.

        Raises ChunkTimeoutError, WhisperCrashError (the process exited), OutOfMemoryError (the system killed it, or an
        allocation failed), EngineUnavailableError, and from the engine ModelMissingError, UnsupportedLanguageError and
        OSError.
        """
        self._use()
        try:
            choice = self._pool.engines.known(model)
            if choice is None:
                with waiting():
                    choice = await self._pool.engines.choose(model)
            since = asyncio.get_running_loop().time()
            while True:
                request = Request(model, choice, pcm, options, deadline, mode, since, since - level * HEAD_START)
                output = await self._pool.run(request, waiting)
                if output is not None:
                    return replace(output, engine=choice.description)
                mode = Mode.ALONE
        finally:
            self._slots.settling += 1

    def _use(self) -> None:
        if self._used:
            self._slots.settling -= 1
        else:
            self._slots.preparing -= 1
        self._used = True

    def release(self) -> None:
        if self._used:
            asyncio.get_running_loop().call_later(REFILL_SECONDS, self._settled)
        else:
            self._slots.preparing -= 1
        self._slots.release()

    def _settled(self) -> None:
        self._slots.settling -= 1
        self._pool.dispatch()


class Pool:
    """A pool of engine processes with `slots` slots. `start` and `stop` are idempotent."""

    def __init__(
        self,
        processes: int,
        engine: str,
        *,
        threads: int | None = None,
        batch_size: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        """engine: as ENGINE; threads: of each call, by default its share of the cores; batch_size: calls of a batch, by
        default the engine's; memory_limit: bytes of address space per process, by default 90 % of the machine's memory.
        """
        limit = memory_limit if memory_limit is not None else physical_memory() * 9 // 10
        self.engines = EngineChoices(engine, processes)
        self._processes = [EngineProcess(self.engines.only, limit) for _ in range(processes)]
        self._threads, self._batch_size = threads, batch_size
        self._budget = ThreadBudget(processes, threads)
        self._idle: list[EngineProcess] = []
        self._idle_since = 0.0
        self._waiting: list[Request] = []
        self._running: dict[asyncio.Task[Outputs], list[Request]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._withheld = 0
        self._to_withhold: list[float] = []
        self._halvings = 0
        self._slots = Slots(0)
        self._started = False

    @property
    def batch_size(self) -> int:
        """The largest number of calls in a batch; 1 until a process has started."""
        return self._batch_size or max([process.batch_size or 1 for process in self._processes])

    @property
    def slots(self) -> int:
        """The number of chunks that the pool transcribes at once."""
        return len(self._processes) * self.batch_size

    async def start(self) -> None:
        """Start all processes whose variant is known; `prepare` starts the others.

        Raises EngineUnavailableError if any fails; it is started again at its first use.
        """
        if self._started:
            return
        self._started = True
        try:
            await _run_all(process.start for process in self._processes)
        finally:
            self._idle = list(self._processes)
            self._set_limit()

    async def prepare(self, model: Path) -> None:
        """Choose the engine for a model, which may take a trial, and start the processes that have none yet with it.

        Raises EngineUnavailableError, ModelMissingError.
        """
        choice = await self.engines.choose(model)
        if not self._started:
            return
        unused = [process for process in self._idle if process.model is None]
        self._idle = [process for process in self._idle if process.model is not None]
        try:
            for process in unused:
                await process.select(choice.variant)
            await _run_all(process.start for process in unused)
        finally:
            self._idle += unused
            self._set_limit()
            self.dispatch()

    async def stop(self) -> None:
        self._started = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        await cancel_and_wait(*self._running)
        for request in self._waiting:
            request.fail(EngineUnavailableError())
        self._waiting.clear()
        self._idle.clear()
        self._to_withhold.clear()
        self._withheld = self._halvings = 0
        self._slots = Slots(0)
        await asyncio.gather(*(process.stop() for process in self._processes))

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for a free slot in FIFO order."""
        slots = self._slots  # `stop` replaces them
        await slots.acquire()
        slot = Slot(self, slots)
        try:
            yield slot
        finally:
            slot.release()
            self.dispatch()

    async def ensure(self) -> None:
        """Replace lost idle processes. Raises EngineUnavailableError."""
        idle, self._idle = self._idle, []
        try:
            await _run_all(process.ensure for process in idle)
        finally:
            self._idle += idle
            self._set_limit()
            self.dispatch()

    # -- calls ---------------------------------------------------------------------------------------------------------
    async def run(self, request: Request, waiting: Callable[[], AbstractContextManager[None]]) -> EngineOutput | None:
        """Run a request when its turn comes; return None if it has to be repeated alone, since its batch failed."""
        if not self._started:
            raise EngineUnavailableError
        bisect.insort(self._waiting, request, key=lambda other: other.rank)
        self.dispatch()
        try:
            if not request.started.is_set():
                with waiting():
                    await request.started.wait()
            return await request.output
        finally:
            self._withdraw(request)

    def _withdraw(self, request: Request) -> None:
        """Forget a request. A batch of which no request is left is cancelled, which replaces its process."""
        request.output.cancel()
        if request in self._waiting:
            self._waiting.remove(request)
            self.dispatch()
        for task, batch in self._running.items():
            if request in batch and all(member.output.done() for member in batch):
                task.cancel()

    def dispatch(self) -> None:
        """Start what can be started now."""
        while self._idle and self._waiting:
            batch = self._next_batch()
            threads = self._budget.take(self._busy(len(batch))) if batch else 0
            if not threads:
                return
            for request in batch:
                self._waiting.remove(request)
                request.started.set()
            process = self._take_idle(batch[0].model)
            log.debug("batch started", action="batch", calls=len(batch), threads=threads)
            task = asyncio.create_task(transcribe_batch(process, batch, threads), name=f"batch of {len(batch)}")
            self._running[task] = batch
            # a callback, since a task that is cancelled at once runs no `finally`
            task.add_done_callback(partial(self._end_batch, process, batch, threads))

    def _next_batch(self) -> list[Request]:
        """Return the requests to start next in an idle process; none if more of them are expected within moments."""
        first = self._waiting[0]
        if first.mode is not Mode.BATCH:
            return [first]
        slots, now = self._slots, asyncio.get_running_loop().time()
        in_calls = len(self._waiting) + sum(map(len, self._running.values()))
        expected = max(0, min(slots.preparing + slots.settling, slots.limit - in_calls))
        most = first.choice.batch_size if self._batch_size is None else None
        limit = min(self._batch_limit, most or self._batch_limit)
        size = min(limit, math.ceil((len(self._waiting) + expected) / len(self._idle)))
        compatible = [r for r in self._waiting if r.mode is Mode.BATCH and r.is_compatible(first)]
        due = max(first.since, self._idle_since) + LINGER_SECONDS
        if len(compatible) < size and now < due:
            self._call_at(due, "linger", self.dispatch)
            return []
        return compatible[:size]

    def _busy(self, starting: int) -> int:
        """Return the number of processes that have work once a batch of `starting` requests runs."""
        others = len(self._waiting) - starting + self._slots.preparing
        return min(len(self._processes) - self._withheld, len(self._running) + 1 + others)

    def _take_idle(self, model: Path) -> EngineProcess:
        """Take the most recently used idle process with the model, else an unused or the least recently used one."""
        with_model = [process for process in self._idle if process.model == model]
        unused = [process for process in self._idle if process.model is None]
        process = with_model[-1] if with_model else [*unused, *self._idle][0]
        self._idle.remove(process)
        return process

    def _end_batch(
        self, process: EngineProcess, batch: list[Request], threads: int, task: asyncio.Task[Outputs]
    ) -> None:
        """Settle the requests of a batch and give its process back. Also called if the task was cancelled."""
        del self._running[task]
        self._budget.give_back(threads)
        failed: Outputs = [EngineUnavailableError()] * len(batch)
        outputs = failed if task.cancelled() else task.result()
        if len(batch) > 1 and any(isinstance(output, OutOfMemoryError | ChunkTimeoutError) for output in outputs):
            self._halve_batches()
        for request, output in zip(batch, outputs, strict=True):
            self._settle(request, output, in_batch=len(batch) > 1)
        self._give_back(process)

    def _settle(self, request: Request, output: EngineOutput | Exception, *, in_batch: bool) -> None:
        if request.output.done():
            return
        if isinstance(output, EngineOutput):
            request.output.set_result(output)
        elif in_batch and not (isinstance(output, SttError) and output.kind in (Kind.PERMANENT, Kind.MACHINE)):
            log.warning("call failed in a batch, running it alone", action="batch_failed", reason=repr(output))
            request.output.set_result(None)
        else:
            request.fail(output)

    def _give_back(self, process: EngineProcess) -> None:
        if not self._started:
            return
        if self._to_withhold:
            self._withhold(process)
        else:
            self._idle.append(process)
            self._idle_since = asyncio.get_running_loop().time()
        self._set_limit()  # the process may have another engine now, with batches of another size
        self.dispatch()

    # -- after running out of memory -----------------------------------------------------------------------------------
    def reduce_slots(self, seconds: float) -> None:
        """Withhold the next idle process for `seconds`, but never the last one; then make batches smaller instead."""
        if self._withheld + len(self._to_withhold) >= len(self._processes) - 1:
            self._halve_batches()
            return
        self._to_withhold.append(seconds)
        if self._idle:
            self._withhold(self._idle.pop(0))
        self._set_limit()

    def _withhold(self, process: EngineProcess) -> None:
        seconds = self._to_withhold.pop(0)
        self._withheld += 1
        log.warning("pool reduced by one process", action="pool_shrunk", seconds=seconds, slots=self._slots.limit)

        def restore() -> None:
            self._withheld -= 1
            self._give_back(process)
            self._set_limit()

        self._call_at(asyncio.get_running_loop().time() + seconds, f"withheld {id(process)}", restore)

    def _halve_batches(self) -> None:
        """Make batches half as large, until HALVED_SECONDS after the last time."""
        if self._batch_limit == 1:
            return
        self._halvings += 1
        self._set_limit()
        log.warning("smaller batches", action="batches_halved", seconds=HALVED_SECONDS, calls=self._batch_limit)
        self._call_at(asyncio.get_running_loop().time() + HALVED_SECONDS, "halved", self._restore_batches)

    def _restore_batches(self) -> None:
        self._halvings = 0
        self._set_limit()

    @property
    def _batch_limit(self) -> int:
        return max(1, self.batch_size >> self._halvings)

    def _set_limit(self) -> None:
        processes = len(self._processes) - self._withheld - len(self._to_withhold)
        self._slots.set_limit(processes * self._batch_limit)

    def _call_at(self, when: float, key: str, function: Callable[[], None]) -> None:
        """Call the function at a time of the loop, instead of an earlier one with the same key."""

        def call() -> None:
            del self._timers[key]
            function()

        if key in self._timers:
            self._timers[key].cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(when, call)


async def _run_all(calls: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Run all calls concurrently until the last one ends, then raise the first error."""
    results = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
