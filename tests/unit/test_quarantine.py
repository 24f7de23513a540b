"""A shared/exclusive lock: an exclusive holder runs alone."""

from __future__ import annotations

import asyncio

from internal.consumer.quarantine import Quarantine


async def test_an_exclusive_holder_waits_for_others_and_blocks_new_ones() -> None:
    quarantine, order = Quarantine(), []
    release = asyncio.Event()

    async def shared(name: str) -> None:
        async with quarantine.shared():
            order.append(f"{name} begins")
            await release.wait()
        order.append(f"{name} ends")

    async def exclusive() -> None:
        async with quarantine.exclusive():
            order.append("alone")

    tasks = [asyncio.create_task(shared("one")), asyncio.create_task(shared("two"))]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(exclusive()))
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(shared("three")))
    await asyncio.sleep(0)
    assert order == ["one begins", "two begins"]
    release.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert order.index("alone") > order.index("one ends")
    assert order.index("three begins") > order.index("alone")


async def test_a_cancelled_wait_releases_the_lock() -> None:
    quarantine = Quarantine()
    async with quarantine.shared():
        waiting = asyncio.create_task(quarantine.exclusive().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(5), quarantine.exclusive():
        pass
