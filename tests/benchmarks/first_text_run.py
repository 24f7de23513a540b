"""One run of the benchmark of the first text: `python -m tests.benchmarks.first_text_run FOLDER FILE PLANNING`.

PLANNING: `instalments`, or `whole` for a plan at the end of the decoding. Prints the seconds from the end of the submit
to the first committed chunk, and to COMPLETED.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from sqlalchemy import func, select

from core.domain.job import JobStatus
from internal.bootstrap import Application
from repositories.models import Chunk
from tests.benchmarks.scaling_run import complete, count_jobs, service, submit
from tests.speech import recording, write_wav
from worker import preparer

POLL_SECONDS = 0.01


async def run(folder: Path, file: Path) -> tuple[float, float]:
    async with service(folder) as app:
        warm = write_wav(folder / "warm.wav", recording("en", 1, seed=3)[0])
        await complete(app, warm, 1)  # loads modules and compiles statements
        before = await count_texts(app)
        await submit(app, file)
        started = time.monotonic()
        while await count_texts(app) == before:
            await asyncio.sleep(POLL_SECONDS)
        first = time.monotonic() - started
        while await count_jobs(app, JobStatus.COMPLETED) < 2:
            await asyncio.sleep(POLL_SECONDS)
        return first, time.monotonic() - started


async def count_texts(app: Application) -> int:
    async with app.database.read() as session:
        finished = select(func.count()).select_from(Chunk).where(Chunk.status == JobStatus.COMPLETED)
        return (await session.execute(finished)).scalar_one()


if __name__ == "__main__":
    if sys.argv[3] == "whole":
        preparer.FIRST_INSTALMENT = sys.maxsize
    print(*asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]))))
