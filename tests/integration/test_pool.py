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
    WhisperCrashError,
)
from tests.engine_processes import process_id, process_ids
from tests.integration.bad_engines import CRASH, EXIT, FINE, HANG, KILL, MEMORY
from tests.servers.base import wait_until
from worker.oom_retry import transcribe_with_less_memory
from worker.pool import Pool, Slot
from worker.transcriber import Options

ADAPTER = "tests.integration.bad_engines"
MODEL = Path("model.bin")
ENGLISH = Options("en")


def pcm(command: int, samples: int = 16_000) -> bytes:
    sound = np.zeros(samples, "<i2")
    sound[0] = command
    return sound.tobytes()


async def transcribe(slot: Slot, command: int, deadline: float = 30.0) -> str:
    return (await slot.transcribe(MODEL, pcm(command), ENGLISH, deadline)).segments[0].text


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(2, ADAPTER)
    await pool.start()
    yield pool
    await pool.stop()


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (CRASH, WhisperCrashError),
        (EXIT, WhisperCrashError),
        (KILL, OutOfMemoryError),
        (MEMORY, OutOfMemoryError),
    ],
)
async def test_a_dead_child_is_an_error_and_the_slot_continues(
    pool: Pool, command: int, error: type[Exception]
) -> None:
    async with pool.slot() as slot, pool.slot() as other:
        neighbour = await process_id(other)
        with pytest.raises(error):
            await transcribe(slot, command)
        assert await transcribe(slot, FINE)
        assert await process_id(other) == neighbour


async def test_work_beyond_its_deadline_is_killed(pool: Pool) -> None:
    async with pool.slot() as slot:
        before = await process_id(slot)
        with pytest.raises(ChunkTimeoutError):
            await transcribe(slot, HANG, deadline=0.3)
        assert await process_id(slot) != before
        assert not psutil.pid_exists(before)


async def test_a_stopped_child_is_detected(pool: Pool) -> None:
    async with pool.slot() as slot:
        os.kill(await process_id(slot), signal.SIGSTOP)
        with pytest.raises(ChunkTimeoutError):
            await transcribe(slot, FINE, deadline=0.3)
        assert await transcribe(slot, FINE)


async def test_cancelling_ends_the_child(pool: Pool) -> None:
    async with pool.slot() as slot:
        before = await process_id(slot)
        task = asyncio.create_task(transcribe(slot, HANG))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await transcribe(slot, FINE)
    await asyncio.to_thread(wait_until, lambda: not psutil.pid_exists(before), "the child has gone", 10)


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
        async with pool.slot() as slot:
            with pytest.raises(OutOfMemoryError):
                await transcribe(slot, KILL)
            pool.reduce_slots(600)
            pool.reduce_slots(600)

    await asyncio.gather(*(run_out_of_memory() for _ in range(4)))
    async with asyncio.timeout(60), pool.slot() as slot:
        assert await transcribe(slot, FINE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), pool.slot():
                pass


async def test_a_parked_slot_returns(pool: Pool) -> None:
    async with pool.slot():
        pool.reduce_slots(0.01)
    async with asyncio.timeout(60), pool.slot(), pool.slot():
        pass


async def test_a_child_that_died_idle_is_replaced_before_its_next_use(pool: Pool) -> None:
    before = await process_ids(pool)
    for child in before:
        os.kill(child, signal.SIGKILL)
    async with pool.slot() as slot, pool.slot() as other:
        assert await transcribe(slot, FINE)
        assert await transcribe(other, FINE)
    # killed after the check, before the call is taken
    async with pool.slot() as slot:
        os.kill(await process_id(slot), signal.SIGKILL)
        assert await transcribe(slot, FINE)


async def test_a_stopped_idle_child_is_replaced(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.pool.PING_SECONDS", 0.3)
    for child in await process_ids(pool):
        os.kill(child, signal.SIGSTOP)
    monkeypatch.setattr("worker.pool.DEADLINE_GRACE", 0.5)
    async with pool.slot() as slot:
        assert await transcribe(slot, FINE)


async def test_a_pool_with_dead_threads_is_rebuilt(pool: Pool) -> None:
    async with pool.slot() as slot:
        assert slot._pool is not None
        channel = slot._pool._pool_manager.worker_manager.pool_channel
        assert channel is not None
        channel.close()  # type: ignore[no-untyped-call]
        assert await transcribe(slot, FINE)


async def test_a_slot_that_cannot_be_rebuilt_recovers_later(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Slot) -> None:
        raise BlockingIOError(errno.EAGAIN, "fork")

    with monkeypatch.context() as patched:
        patched.setattr(Slot, "_open", refuse)
        for child in await process_ids(pool):
            os.kill(child, signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(EngineUnavailableError):
                async with pool.slot():
                    pass
        with pytest.raises(EngineUnavailableError):
            await pool.ensure()
    await pool.ensure()
    async with pool.slot() as slot, pool.slot() as other:
        assert await transcribe(slot, FINE)
        assert await transcribe(other, FINE)


async def test_a_signal_to_the_whole_group_does_not_end_the_children(pool: Pool) -> None:
    for child in await process_ids(pool):
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(child, number)
    async with pool.slot() as slot:
        assert await transcribe(slot, FINE)


async def test_a_slot_in_use_during_a_restart_is_not_free_twice(pool: Pool) -> None:
    async with pool.slot():
        await pool.stop()
        await pool.start()
    assert pool._free.qsize() == pool.slots


async def test_stop_is_idempotent_and_leaves_no_process(pool: Pool) -> None:
    children = await process_ids(pool)
    await pool.stop()
    await pool.stop()
    assert not any(psutil.pid_exists(child) for child in children)
    await Pool(1, ADAPTER).stop()


async def test_two_halves_run_in_a_new_process(pool: Pool) -> None:
    async with pool.slot() as slot:
        before = await process_id(slot)
        output = await transcribe_with_less_memory(slot, MODEL, pcm(FINE, 160_000), ENGLISH, 30)
        first, second = (segment.text.split() for segment in output.segments)
        assert first[0] == second[0] != str(before)
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
