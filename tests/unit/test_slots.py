"""Upload slots: shared among owners, lost by clients that are too slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from core.errors import TooManyUploads, UploadTimeoutError
from internal.api import upload_slots
from internal.api.upload_slots import UploadSlot, UploadSlots

PATIENCE = 30.0


async def every(seconds: float, piece: bytes, times: int = 100_000) -> AsyncIterator[bytes]:
    for _ in range(times):
        await asyncio.sleep(seconds)
        yield piece


async def count(slot: UploadSlot, chunks: AsyncIterator[bytes]) -> int:
    return sum([len(piece) async for piece in slot.pieces(chunks)])


@pytest.mark.parametrize("piece", [b"", b"x"])
async def test_a_trickle_ends(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.2)
    with pytest.raises(UploadTimeoutError):
        await count(UploadSlot("a", 1024), every(0.01, piece))


async def test_silence_ends_and_any_byte_is_enough_without_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 2.0)
    assert await count(UploadSlot("a", 0), every(0.1, b"x", 30)) == 30
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.1)
    with pytest.raises(UploadTimeoutError):
        await count(UploadSlot("a", 0), every(60, b"x"))


async def test_a_burst_pays_for_one_allowance_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.2)

    async def chunks() -> AsyncIterator[bytes]:
        yield bytes(10**6)
        async for piece in every(0.01, b"x"):
            yield piece

    with pytest.raises(UploadTimeoutError):
        await count(UploadSlot("a", 1024), chunks())


async def test_the_time_that_storage_takes_is_not_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.3)
    slot = UploadSlot("a", 1024)
    async for _ in slot.pieces(every(0, b"x", 6)):
        await asyncio.sleep(0.1)


async def held(shared: UploadSlots, owner: str | None, stack: contextlib.AsyncExitStack) -> UploadSlot:
    return await stack.enter_async_context(shared.acquire(owner))


async def test_one_owner_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "WAIT_TIMEOUT", 0.05)
    shared = UploadSlots(8, 1024)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(6):
            await held(shared, "a", stack)
        with pytest.raises(TooManyUploads):
            await held(shared, "a", stack)
        await held(shared, "b", stack)
        await held(shared, "c", stack)
        with pytest.raises(TooManyUploads):
            await held(shared, "d", stack)


async def test_the_person_at_this_machine_may_have_all() -> None:
    shared = UploadSlots(3, 1024)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await held(shared, None, stack)


async def test_who_has_least_comes_first() -> None:
    shared = UploadSlots(4, 1024)
    came: list[str] = []

    async def upload(owner: str) -> None:
        async with shared.acquire(owner):
            came.append(owner)

    async with contextlib.AsyncExitStack() as rest:
        stack = contextlib.AsyncExitStack()
        await held(shared, "a", stack)
        await held(shared, "a", rest)
        await held(shared, "a", rest)
        await held(shared, "b", rest)
        uploads = [asyncio.create_task(upload(owner)) for owner in ("a", "b", "c")]
        async with asyncio.timeout(PATIENCE):
            while len(shared._waiting) < 3:
                await asyncio.sleep(0)
            await stack.aclose()
            await asyncio.gather(*uploads)
    assert came == ["c", "b", "a"]


async def test_eight_trickles_give_way_to_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all are the same owner's, and long before the allowance is over."""
    monkeypatch.setattr(upload_slots, "PREEMPT_SECONDS", 0.2)
    shared = UploadSlots(8, 1024)

    async def trickle() -> None:
        async with shared.acquire(None) as slot:
            await count(slot, every(0.01, b"x"))

    trickles = [asyncio.create_task(trickle()) for _ in range(8)]
    async with asyncio.timeout(PATIENCE):
        while len(shared._taken) < 8:
            await asyncio.sleep(0)
        async with shared.acquire(None) as slot:
            assert await count(slot, every(0, bytes(1024), 3)) == 3072
        ended = [task for task in trickles if task.done()]
        assert ended
        assert all(isinstance(task.exception(), UploadTimeoutError) for task in ended)
    for task in trickles:
        task.cancel()
    await asyncio.gather(*trickles, return_exceptions=True)


async def test_an_upload_at_a_good_rate_is_not_ended_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "WAIT_TIMEOUT", 1.5)
    shared = UploadSlots(1, 10.0)

    async def upload() -> int:
        async with shared.acquire("a") as slot:
            return await count(slot, every(0.05, bytes(1000), 60))

    uploading = asyncio.create_task(upload())
    await asyncio.sleep(0)
    with pytest.raises(TooManyUploads):
        async with shared.acquire("b"):
            pass
    assert await uploading == 60_000


async def test_a_waiter_that_hangs_up_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = UploadSlots(1, 1024)
    async with shared.acquire("a"):
        waiting = asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(shared.acquire("b")))
        while not shared._waiting:
            await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(PATIENCE), shared.acquire("c"):
        assert not shared._waiting


async def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_slots, "WAIT_TIMEOUT", PATIENCE)
    shared = UploadSlots(1, 1024)
    async with shared.acquire("a"):
        waiting = [
            asyncio.create_task(contextlib.AsyncExitStack().enter_async_context(shared.acquire("b"))) for _ in range(4)
        ]
        while len(shared._waiting) < 4:
            await asyncio.sleep(0)
        with pytest.raises(TooManyUploads):
            async with shared.acquire("c"):
                pass
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
