"""Upload slots: shared fairly among owners, taken from clients that are too slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from core.errors import TooManyUploads, UploadTimeoutError
from internal.api import upload_slots
from internal.api.upload_slots import UploadSlot, UploadSlots

TIMEOUT = 30.0


async def repeat_every(seconds: float, piece: bytes, times: int = 100_000) -> AsyncIterator[bytes]:
    for _ in range(times):
        await asyncio.sleep(seconds)
        yield piece


async def count(slot: UploadSlot, chunks: AsyncIterator[bytes]) -> int:
    return sum([len(piece) async for piece in slot.pieces(chunks)])


@pytest.mark.parametrize("piece", [b"", b"x"])
async def test_a_trickling_upload_is_ended(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.2)
    with pytest.raises(UploadTimeoutError):
        await count(UploadSlot("a", 1024), repeat_every(0.01, piece))


async def test_without_a_rate_only_a_silent_upload_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 2.0)
    assert await count(UploadSlot("a", 0), repeat_every(0.1, b"x", 30)) == 30
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.1)
    with pytest.raises(UploadTimeoutError):
        await count(UploadSlot("a", 0), repeat_every(60, b"x"))


async def test_a_burst_earns_at_most_one_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.2)

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(10**6)
        async for piece in repeat_every(0.01, b"x"):
            yield piece

    with pytest.raises(UploadTimeoutError):
        await count(UploadSlot("a", 1024), chunks())


async def test_time_spent_in_storage_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.3)
    slot = UploadSlot("a", 1024)
    async for _ in slot.pieces(repeat_every(0, b"x", 6)):
        await asyncio.sleep(0.1)


async def enter_slot(pool: UploadSlots, owner: str | None, stack: contextlib.AsyncExitStack) -> UploadSlot:
    return await stack.enter_async_context(pool.acquire(owner))


async def test_one_owner_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "WAIT_TIMEOUT", 0.05)
    pool = UploadSlots(8, 1024)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            await enter_slot(pool, "a", stack)
        with pytest.raises(TooManyUploads):
            await enter_slot(pool, "a", stack)
        await enter_slot(pool, "b", stack)
        await enter_slot(pool, "c", stack)
        with pytest.raises(TooManyUploads):
            await enter_slot(pool, "d", stack)


async def test_uploads_without_an_owner_may_take_all_slots() -> None:
    pool = UploadSlots(3, 1024)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await enter_slot(pool, None, stack)


async def test_a_slot_handed_to_a_waiter_is_handed_out_once() -> None:
    """Regression: between the grant and the waiter's own step, the slot was counted nowhere."""
    pool = UploadSlots(1, 0)
    active = most = 0

    async def upload(owner: str | None) -> None:
        nonlocal active, most
        async with pool.acquire(owner):
            active += 1
            most = max(most, active)
            await asyncio.sleep(0.01)
            active -= 1

    await asyncio.gather(*(upload(owner) for owner in (None, "a", "b", None, "c")))
    assert most == 1


async def test_the_owner_with_the_fewest_slots_is_served_first() -> None:
    pool = UploadSlots(4, 1024)
    order: list[str] = []

    async def upload(owner: str) -> None:
        async with pool.acquire(owner):
            order.append(owner)

    async with contextlib.AsyncExitStack() as other_slots:
        stack = contextlib.AsyncExitStack()
        await enter_slot(pool, "a", stack)
        await enter_slot(pool, "a", other_slots)
        await enter_slot(pool, "a", other_slots)
        await enter_slot(pool, "b", other_slots)
        uploads = [asyncio.create_task(upload(owner)) for owner in ("a", "b", "c")]
        async with asyncio.timeout(TIMEOUT):
            while len(pool._waiting) < 3:
                await asyncio.sleep(0)
            await stack.aclose()
            await asyncio.gather(*uploads)
    assert order == ["c", "b", "a"]


async def test_trickling_uploads_give_way_to_a_waiting_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trickling uploads of the same owner also give way, long before the allowance is used up."""
    monkeypatch.setattr(upload_slots, "PREEMPT_SECONDS", 0.2)
    pool = UploadSlots(8, 1024)

    async def trickle() -> None:
        async with pool.acquire(None) as slot:
            await count(slot, repeat_every(0.01, b"x"))

    trickles = [asyncio.create_task(trickle()) for _ in range(8)]
    async with asyncio.timeout(TIMEOUT):
        while len(pool._taken) < 8:
            await asyncio.sleep(0)
        async with pool.acquire(None) as slot:
            assert await count(slot, repeat_every(0, bytes(1024), 3)) == 3072
        finished = [task for task in trickles if task.done()]
        assert finished
        assert all(isinstance(task.exception(), UploadTimeoutError) for task in finished)
    for task in trickles:
        task.cancel()
    await asyncio.gather(*trickles, return_exceptions=True)


async def test_an_upload_at_a_sufficient_rate_is_not_ended_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "WAIT_TIMEOUT", 1.5)
    pool = UploadSlots(1, 10.0)

    async def upload() -> int:
        async with pool.acquire("a") as slot:
            return await count(slot, repeat_every(0.05, bytes(1000), 60))

    uploading = asyncio.create_task(upload())
    await asyncio.sleep(0)
    with pytest.raises(TooManyUploads):
        async with pool.acquire("b"):
            pass
    assert await uploading == 60_000


async def test_a_cancelled_waiter_takes_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = UploadSlots(1, 1024)
    async with pool.acquire("a"):
        waiting = asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(pool.acquire("b")))
        while not pool._waiting:
            await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(TIMEOUT), pool.acquire("c"):
        assert not pool._waiting


async def test_the_waiting_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "WAIT_TIMEOUT", TIMEOUT)
    pool = UploadSlots(1, 1024)
    async with pool.acquire("a"):
        waiting = [
            asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(pool.acquire("b"))) for _ in range(4)
        ]
        while len(pool._waiting) < 4:
            await asyncio.sleep(0)
        with pytest.raises(TooManyUploads):
            async with pool.acquire("c"):
                pass
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
