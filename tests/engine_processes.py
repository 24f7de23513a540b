"""The process ids of a pool's engines."""

from __future__ import annotations

import asyncio

from worker import pool_child
from worker.engine_process import START_SECONDS, EngineProcess
from worker.pool import Pool


async def process_id(process: EngineProcess) -> int:
    return await process._call(START_SECONDS, pool_child.process_id)


async def process_ids(pool: Pool) -> list[int]:
    """The process id of each engine; lost processes are replaced first."""
    return list(await asyncio.gather(*(process_id(process) for process in pool._processes)))
