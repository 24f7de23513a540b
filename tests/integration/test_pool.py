"""A crash, hang or kill affects only one chunk."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from core.errors import (
    ChunkTimeoutError,
    EngineUnavailableError,
    ModelMissingError,
    OutOfMemoryError,
)
from tests.engine_processes import process_id, process_ids
from tests.integration.bad_engines import DEATHS, FINE, HANG, KILL, MEMORY
from tests.servers.base import wait_until
from worker.batch import Mode
from worker.engine_process import EngineProcess
from worker.pool import Pool
from worker.transcriber import Options

ADAPTER = "tests.integration.bad_engines"
MODEL = Path("model.bin")
ENGLISH = Options("en")


def pcm(command: int, samples: int = 16_000) -> bytes:
    sound = np.zeros(samples, "<i2")
    sound[0] = command
    return sound.tobytes()


async def transcribe(pool: Pool, command: int, deadline: float = 30.0, mode: Mode = Mode.BATCH) -> str:
    async with pool.slot() as slot:
        return (await slot.transcribe(MODEL, pcm(command), ENGLISH, deadline, mode=mode)).segments[0].text


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(2, ADAPTER)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.mark.parametrize(("command", "error"), DEATHS)
async def test_a_dead_child_is_an_error_and_the_pool_continues(
    pool: Pool, command: int, error: type[Exception]
) -> None:
    before = await process_ids(pool)
    with pytest.raises(error):
        await transcribe(pool, command)
    assert await transcribe(pool, FINE)
    assert len(set(before) & set(await process_ids(pool))) == (2 if command == MEMORY else 1)


async def test_work_beyond_its_deadline_is_killed(pool: Pool) -> None:
    before = set(await process_ids(pool))
    with pytest.raises(ChunkTimeoutError):
        await transcribe(pool, HANG, deadline=0.3)
    [lost] = before - set(await process_ids(pool))
    assert not psutil.pid_exists(lost)


async def test_a_stopped_child_is_detected(pool: Pool) -> None:
    """It stops during the call, after it has responded to the check."""
    used = int((await transcribe(pool, FINE)).split()[0])
    task = asyncio.create_task(transcribe(pool, HANG, deadline=0.5))
    await asyncio.sleep(0.2)
    os.kill(used, signal.SIGSTOP)
    with pytest.raises(ChunkTimeoutError):
        await task
    assert await transcribe(pool, FINE)


async def test_cancelling_ends_the_child(pool: Pool) -> None:
    used = int((await transcribe(pool, FINE)).split()[0])
    task = asyncio.create_task(transcribe(pool, HANG))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await transcribe(pool, FINE)
    await asyncio.to_thread(wait_until, lambda: not psutil.pid_exists(used), "the child has gone", 10)


async def test_a_slot_is_used_by_one_caller_at_a_time(pool: Pool) -> None:
    async with pool.slot(), pool.slot():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), pool.slot():
                pass
    async with pool.slot():
        pass


async def test_shrinking_parks_a_slot_temporarily(pool: Pool) -> None:
    async with pool.slot():
        pool.reduce_slots(0.5)
        await asyncio.sleep(0.05)
        pool.reduce_slots(0.5)
        started = time.monotonic()
        async with pool.slot():
            assert time.monotonic() - started > 0.2


async def test_two_concurrent_memory_errors_leave_one_slot(pool: Pool) -> None:
    """Regression: both were parked, and nothing ran for ten minutes."""

    async def run_out_of_memory() -> None:
        with pytest.raises(OutOfMemoryError):
            await transcribe(pool, KILL)
        pool.reduce_slots(600)
        pool.reduce_slots(600)

    await asyncio.gather(*(run_out_of_memory() for _ in range(4)))
    async with asyncio.timeout(60), pool.slot() as slot:
        assert (await slot.transcribe(MODEL, pcm(FINE), ENGLISH, 30)).segments
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), pool.slot():
                pass


async def test_a_parked_slot_returns(pool: Pool) -> None:
    async with pool.slot():
        pool.reduce_slots(0.01)
    async with asyncio.timeout(60), pool.slot(), pool.slot():
        pass


async def test_a_child_that_died_idle_is_replaced_before_its_next_use(pool: Pool) -> None:
    for _ in range(2):
        for child in await process_ids(pool):
            os.kill(child, signal.SIGKILL)
        await asyncio.gather(transcribe(pool, FINE), transcribe(pool, FINE))


async def test_a_child_killed_after_the_check_is_replaced(pool: Pool) -> None:
    process = pool._processes[0]
    os.kill(await process_id(process), signal.SIGKILL)
    assert await process.transcribe(MODEL, [(pcm(FINE), ENGLISH)], 1, 30)


async def test_a_stopped_idle_child_is_replaced(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine_process.PING_SECONDS", 0.3)
    for child in await process_ids(pool):
        os.kill(child, signal.SIGSTOP)
    monkeypatch.setattr("worker.engine_process.DEADLINE_GRACE", 0.5)
    assert await transcribe(pool, FINE)


async def test_a_process_with_dead_threads_is_rebuilt(pool: Pool) -> None:
    for process in pool._processes:
        assert process._pool is not None
        channel = process._pool._pool_manager.worker_manager.pool_channel
        assert channel is not None
        channel.close()  # type: ignore[no-untyped-call]
    assert await transcribe(pool, FINE)


async def test_a_process_that_cannot_be_rebuilt_recovers_later(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: EngineProcess) -> None:
        raise BlockingIOError(errno.EAGAIN, "fork")

    with monkeypatch.context() as patched:
        patched.setattr(EngineProcess, "_open", refuse)
        for child in await process_ids(pool):
            os.kill(child, signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(EngineUnavailableError):
                await transcribe(pool, FINE)
        with pytest.raises(EngineUnavailableError):
            await pool.ensure()
    await pool.ensure()
    await asyncio.gather(transcribe(pool, FINE), transcribe(pool, FINE))


async def test_a_signal_to_the_whole_group_does_not_end_the_children(pool: Pool) -> None:
    for child in await process_ids(pool):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(child, number)
    assert await transcribe(pool, FINE)


async def test_a_slot_in_use_during_a_restart_is_not_free_twice(pool: Pool) -> None:
    async with pool.slot():
        await pool.stop()
        await pool.start()
    async with pool.slot(), pool.slot():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), pool.slot():
                pass


async def test_stop_is_idempotent_and_leaves_no_process(pool: Pool) -> None:
    children = await process_ids(pool)
    await pool.stop()
    await pool.stop()
    assert not any(psutil.pid_exists(child) for child in children)
    await Pool(1, ADAPTER).stop()


async def test_two_halves_run_in_a_new_process(pool: Pool) -> None:
    before = await process_ids(pool)
    async with pool.slot() as slot:
        output = await slot.transcribe(MODEL, pcm(FINE, 160_000), ENGLISH, 30, mode=Mode.LESS_MEMORY)
    first, second = (segment.text.split() for segment in output.segments)
    assert first[0] == second[0]
    assert int(first[0]) not in before
    assert int(first[1]) + int(second[1]) == 160_000
    assert (first[2], second[2]) == ("1", "1")
    assert output.segments[1].start == pytest.approx(int(first[1]) / 16_000)


async def test_a_missing_model_is_not_a_crash() -> None:
    pool = Pool(1, "whisper_cpp")
    await pool.start()
    async with pool.slot() as slot:
        with pytest.raises(ModelMissingError):
            await slot.transcribe(Path("/nowhere.bin"), pcm(FINE), ENGLISH, 30)
    await pool.stop()


PARENT = """
import asyncio, sys
from tests.engine_processes import process_ids
from worker.pool import Pool
async def main():
    pool = Pool(2, "tests.integration.bad_engines")
    await pool.start()
    print(*await process_ids(pool), flush=True)
    await asyncio.sleep(60)
if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment, cwd=root) as parent:
        assert parent.stdout is not None
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        parent.kill()
    wait_until(lambda: not any(psutil.pid_exists(child) for child in children), "the child processes exit", 10)
