"""The process ids of a pool's engines."""

from __future__ import annotations

import asyncio

from worker import pool_child
from worker.pool import START_SECONDS, Pool, Slot


async def process_id(slot: Slot) -> int:
    return await slot._call(START_SECONDS, pool_child.process_id)


async def process_ids(pool: Pool) -> list[int]:
    """The process id of each slot; lost processes are replaced first."""
    return list(await asyncio.gather(*(process_id(slot) for slot in pool._slots)))
