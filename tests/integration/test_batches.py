"""Several calls in one batch of an engine process: how batches form, and that each fault belongs to its own call."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from core.domain.job_options import JobOptions
from core.errors import (
    ChunkTimeoutError,
    EngineUnavailableError,
    UnsupportedLanguageError,
)
from core.machine import usable_cores
from tests.engine_processes import process_ids
from tests.integration.bad_engines import CRASH, CROWDED, DEATHS, FINE, GATE, HANG, MEMORY, SHORT
from tests.integration.test_pool import ADAPTER, MODEL, pcm
from tests.speech import MODEL as SPEECH_MODEL
from worker import pool as pool_module
from worker.batch import Mode
from worker.pool import Pool
from worker.transcriber import Options

SECONDS = 60.0


@dataclass(frozen=True)
class Ran:
    """Output of a bad engine for a call."""

    process: int
    calls: int
    threads: int


class Calls:
    """Calls of a pool, each in a task with a slot of its own."""

    def __init__(self, pool: Pool, folder: Path) -> None:
        self.pool, self.gate = pool, folder / "gate"

    def start(
        self, command: int = FINE, *, model: Path = MODEL, mode: Mode = Mode.BATCH, level: int = 0, deadline: float = 30
    ) -> asyncio.Task[Ran]:
        options = Options("en", job=JobOptions(prompt=str(self.gate)))

        async def call() -> Ran:
            async with self.pool.slot() as slot:
                await asyncio.sleep(0)  # calls that are started together take their slots first
                output = await slot.transcribe(model, pcm(command), options, deadline, mode=mode, level=level)
            process, _, _, calls, threads = output.segments[0].text.split()
            return Ran(int(process), int(calls), int(threads))

        return asyncio.create_task(call())

    async def start_waiting(self, *commands: int, **more: float) -> list[asyncio.Task[Ran]]:
        """Start calls, and wait until they wait for their turn."""
        before = len(self.pool._waiting)
        tasks = [self.start(command, **more) for command in commands]  # type: ignore[arg-type]
        await until(lambda: len(self.pool._waiting) == before + len(commands))
        return tasks

    async def start_batch(self, *commands: int) -> list[asyncio.Task[Ran]]:
        """Start calls, and wait until they run as one batch."""
        tasks = [self.start(command) for command in commands]
        await until(lambda: len(commands) in map(len, self.pool._running.values()))
        return tasks

    async def block(self) -> list[asyncio.Task[Ran]]:
        """Occupy each process with a call that ends once the gate is open."""
        blocking = [self.start(GATE) for _ in self.pool._processes]
        await until(lambda: len(self.pool._running) == len(blocking))
        return blocking


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Calls]:
    """A pool with one process and batches of four."""
    async with started(Pool(1, ADAPTER, batch_size=4), tmp_path) as calls:
        yield calls


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Calls]:
    """A pool with two processes and batches of four."""
    async with started(Pool(2, ADAPTER, batch_size=4, threads=1), tmp_path) as calls:
        yield calls


@contextlib.asynccontextmanager
async def started(pool: Pool, folder: Path) -> AsyncIterator[Calls]:
    await pool.start()
    try:
        async with asyncio.timeout(SECONDS):
            yield Calls(pool, folder)
    finally:
        (folder / "gate").touch()
        await pool.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An idle process waits for calls that are being prepared far longer than the test takes."""
    monkeypatch.setattr(pool_module, "LINGER_SECONDS", 10 * SECONDS)
    yield


# -- forming ----------------------------------------------------------------------------------------------------------
async def test_calls_that_arrive_while_the_process_works_form_one_batch(one: Calls) -> None:
    [blocking] = await one.block()
    others = await one.start_waiting(FINE, FINE, FINE)
    one.gate.touch()
    assert (await blocking).calls == 1
    assert [(await other).calls for other in others] == [3, 3, 3]


async def test_idle_processes_are_used_before_batches_form(two: Calls) -> None:
    first, second = await two.block()
    others = await two.start_waiting(*[FINE] * 6)
    two.gate.touch()
    assert (await first).process != (await second).process
    assert sorted([(await other).calls for other in others]) in ([2, 2, 4, 4, 4, 4], [3] * 6)


@pytest.mark.usefixtures("patient")
async def test_a_lone_call_is_not_delayed(one: Calls) -> None:
    for _ in range(3):
        assert await one.start() == Ran((await process_ids(one.pool))[0], 1, usable_cores())


@pytest.mark.usefixtures("patient")
async def test_as_many_calls_as_processes_are_not_delayed(two: Calls) -> None:
    async with two.pool.slot():
        ran = await two.start()
    assert ran.calls == 1


@pytest.mark.usefixtures("patient")
async def test_slots_that_are_being_prepared_are_waited_for(one: Calls) -> None:
    """Without it, batches of one and of three alternate."""
    sizes: list[int] = []

    async def work(prepare_seconds: float) -> None:
        for _ in range(4):
            async with one.pool.slot() as slot:
                await asyncio.sleep(prepare_seconds)
                output = await slot.transcribe(MODEL, pcm(FINE), Options("en"), 30)
                sizes.append(int(output.segments[0].text.split()[3]))

    await asyncio.gather(*(work(number / 50) for number in range(4)))
    assert sizes == [4] * 16


async def test_preparing_takes_no_longer_than_the_linger(one: Calls) -> None:
    async with one.pool.slot(), one.pool.slot():
        assert (await one.start()).calls == 1


async def test_calls_of_different_models_are_not_in_one_batch(one: Calls) -> None:
    await one.block()
    models = [Path("a.bin"), Path("b.bin"), Path("a.bin")]
    others = [one.start(model=model) for model in models]
    await until(lambda: len(one.pool._waiting) == 3)
    one.gate.touch()
    assert [(await other).calls for other in others] == [2, 1, 2]


async def test_a_repeated_chunk_runs_alone(one: Calls) -> None:
    await one.block()
    others = [one.start(mode=mode) for mode in (Mode.BATCH, Mode.ALONE, Mode.BATCH)]
    await until(lambda: len(one.pool._waiting) == 3)
    one.gate.touch()
    assert [(await other).calls for other in others] == [2, 1, 2]


async def test_urgent_calls_precede(one: Calls) -> None:
    await one.block()
    order: list[str] = []
    for name, level in (("low", 0), ("normal", 1), ("high", 2)):
        task = one.start(level=level, mode=Mode.ALONE)
        task.add_done_callback(lambda _, name=name: order.append(name))  # type: ignore[misc]
        await asyncio.sleep(0)
    await until(lambda: len(one.pool._waiting) == 3)
    one.gate.touch()
    await until(lambda: len(order) == 3)
    assert order == ["high", "normal", "low"]


async def test_the_process_that_has_the_model_is_used_again(two: Calls) -> None:
    """So that on an idle machine only one process holds it."""
    used = (await two.start()).process
    other = (await two.start(model=Path("other.bin"))).process
    assert other != used
    for _ in range(2):
        assert (await two.start()).process == used
        assert (await two.start(model=Path("other.bin"))).process == other


async def test_the_engine_states_its_batch_size(tmp_path: Path) -> None:
    for adapter, size in (("tests.integration.batch_engine", 4), (ADAPTER, 1)):
        async with started(Pool(2, adapter), tmp_path) as calls:
            assert (calls.pool.batch_size, calls.pool.slots) == (size, 2 * size)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(2 * size):
                    await stack.enter_async_context(calls.pool.slot())


# -- faults -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("command", "error"), [*DEATHS, (HANG, ChunkTimeoutError), (SHORT, RuntimeError)])
async def test_only_the_call_at_fault_fails(one: Calls, command: int, error: type[Exception]) -> None:
    """The others of its batch run again alone, and so does the one at fault, before it is blamed."""
    await one.block()
    first, bad, third = await one.start_waiting(FINE, command, FINE, deadline=1.0 if command == HANG else 30.0)
    one.gate.touch()
    with pytest.raises(error):
        await bad
    expected = 3 if command == MEMORY else 1
    assert [(await first).calls, (await third).calls] == [expected, expected]


async def test_a_batch_that_is_too_large_for_the_memory_runs_as_smaller_ones(
    one: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.block()
    others = await one.start_waiting(CROWDED, CROWDED, FINE)
    one.gate.touch()
    assert [(await other).calls for other in others] == [1, 1, 1]
    assert one.pool._slots.limit == 2
    one.pool._restore_batches()
    assert one.pool._slots.limit == 4
    one.pool.reduce_slots(600)
    assert one.pool._slots.limit == 2, "the last process is never withheld"


async def test_a_process_killed_during_a_batch_fails_no_call(one: Calls) -> None:
    batch = await one.start_batch(GATE, GATE, GATE)
    [child] = engine_processes()
    await asyncio.sleep(0.2)
    os.kill(child, signal.SIGKILL)
    one.gate.touch()
    ran = [await task for task in batch]
    assert [one.calls for one in ran] == [1, 1, 1]
    assert child not in {one.process for one in ran}


def engine_processes() -> list[int]:
    children = psutil.Process().children()
    return [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]


async def test_an_error_of_one_call_is_its_own(tmp_path: Path) -> None:
    """The real engine, on calls of which one has a language that it does not know."""
    async with started(Pool(1, "whisper_cpp", batch_size=3), tmp_path) as calls:

        async def call(language: str) -> str:
            async with calls.pool.slot() as slot:
                return (await slot.transcribe(SPEECH_MODEL, pcm(FINE), Options(language), 30)).language

        outputs = await asyncio.gather(*map(call, ("en", "klingon", "vi")), return_exceptions=True)
    assert (outputs[0], outputs[2]) == ("en", "vi")
    assert isinstance(outputs[1], UnsupportedLanguageError)


# -- cancelling -------------------------------------------------------------------------------------------------------
async def test_cancelling_one_call_of_a_batch_leaves_the_others(one: Calls) -> None:
    batch = await one.start_batch(GATE, GATE, GATE)
    [child] = engine_processes()
    batch[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch[1]
    later = one.start()
    one.gate.touch()
    assert [await batch[number] for number in (0, 2)] == [Ran(child, 3, usable_cores())] * 2
    assert (await later).process == child


async def test_cancelling_all_calls_of_a_batch_ends_the_process(one: Calls) -> None:
    batch = await one.start_batch(HANG, HANG, HANG)
    [child] = engine_processes()
    await asyncio.sleep(0.1)
    for task in batch:
        task.cancel()
    await asyncio.wait(batch)
    assert (await one.start()).process != child
    await until(lambda: not psutil.pid_exists(child))


async def test_a_call_cancelled_at_once_leaves_the_process_usable(one: Calls) -> None:
    for pauses in range(4):
        task = one.start(HANG)
        for _ in range(pauses):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert (await one.start()).calls == 1
    assert one.pool._budget.in_use == 0


async def test_a_call_cancelled_while_it_waits_is_not_run(one: Calls) -> None:
    [blocking] = await one.block()
    [bad] = await one.start_waiting(CRASH)
    bad.cancel()
    await asyncio.wait([bad])
    assert not one.pool._waiting
    one.gate.touch()
    child = (await blocking).process
    assert (await one.start()).process == child


async def test_stop_ends_running_and_waiting_calls(one: Calls) -> None:
    running = await one.block()
    waiting = await one.start_waiting(FINE, FINE)
    children = engine_processes()
    await one.pool.stop()
    for task in (*running, *waiting):
        with pytest.raises(EngineUnavailableError):
            await task
    assert not any(psutil.pid_exists(child) for child in children)
