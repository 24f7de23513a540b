"""Rows and bytes that a job leaves in PostgreSQL and in the storage: the figures of `stt doctor --plan`.

`python -m tests.benchmarks leftovers`. Jobs are taken through their states by the repositories' own functions, with a
sentence of ten words for every four seconds.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from core.database import Database
from core.domain import keys
from core.domain.job_options import MergeMethod
from core.domain.transcript import ChunkTranscript, Segment
from migrations.run import upgrade
from repositories import claims, commits, plans
from repositories.claims import ClaimRequest
from repositories.commits import ChunkOutcome, JobOutcome
from repositories.models import Base
from tests.benchmarks.instant_engine import SECONDS, SENTENCE
from tests.benchmarks.table import Row
from tests.contract import rows
from tests.servers import postgres
from worker.exporters import formats
from worker.result import JobMetadata, build_result

CHUNK_SECONDS = 37.9
"""Seconds of a recording for each chunk: an hour of the benchmark `scaling` has 95."""
CASES = ((400, 1), (8, 95))
"""Numbers of jobs, and of chunks of each."""
METRICS = {"chunk_seconds": 1.5, "chunk_cpu_seconds": 1.4, "chunk_encodes": 1.0, "chunk_audio_seconds": 29.0}
TOTALS = {"download_seconds": 0.1, "decode_seconds": 0.2, "total_seconds": 9.0, "real_time_factor": 0.1}


def run() -> list[Row]:
    """Print the figures by number of chunks; they have no rows in the table of `make bench`."""
    server = postgres.find()
    try:
        url = postgres.create_database(server.url).replace("postgresql://", "postgresql+asyncpg://")
        for figures in asyncio.run(_measure(url)):
            print(json.dumps(figures))
    finally:
        server.remove()
    return []


async def _measure(url: str) -> list[dict[str, float]]:
    database = Database(url)
    await upgrade(database)
    found = []
    for jobs, chunks in CASES:
        before = await _state(database)
        for _ in range(jobs):
            await _job(database, chunks)
        after = await _state(database)
        found.append(
            {
                "chunks": chunks,
                "rows": (after[0] - before[0]) / jobs,
                "bytes": (after[1] - before[1]) / jobs,
                "result_bytes": _result_bytes(chunks),
            }
        )
    await database.stop()
    return found


async def _state(database: Database) -> tuple[int, int]:
    """Return the number of rows and the bytes of all tables with their indexes."""
    count = size = 0
    for table in Base.metadata.sorted_tables:
        async with database.read() as session:
            connection = await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            await connection.execute(text(f"VACUUM ANALYZE {table.name}"))
        async with database.read() as session:
            count += (await session.execute(text(f"SELECT count(*) FROM {table.name}"))).scalar_one()
            size += (await session.execute(text(f"SELECT pg_total_relation_size('{table.name}')"))).scalar_one()
    return count, size


async def _job(database: Database, chunks: int) -> None:
    job_id = await rows.new_job(database, audio_key="uploads/00000000-0000-0000-0000-000000000000/recording.mp3")
    async with database.write() as session:
        assert await claims.claim_prepare(session, job_id, 0, ClaimRequest(rows.WORKER, rows.LEASE))
    async with database.write() as session:
        assert await plans.store_plan(session, job_id, rows.plan(chunks, 1, 64, job_id)) is not None
    for index in range(chunks):
        claimed = await rows.claim(database, job_id, index)
        assert claimed is not None
        outcome = ChunkOutcome(_segments(index), 1.5, "en", METRICS, "openvino, 8-bit, avx512_vnni")
        async with database.write() as session:
            assert await commits.commit_chunk(session, claimed, outcome, pin_language=False) is not None
    words = " ".join(str(segment["text"]) for index in range(chunks) for segment in _segments(index))
    done = JobOutcome(keys.result_key(job_id), words, 0.9, 9.0, 0, TOTALS)
    async with database.write() as session:
        assert await commits.complete_job(session, job_id, done) is not None


def _segments(index: int) -> list[dict[str, Any]]:
    first = index * CHUNK_SECONDS
    starts = [first + SECONDS * number for number in range(int(CHUNK_SECONDS / SECONDS))]
    return [{"start": start, "end": start + SECONDS, "text": SENTENCE, "confidence": 0.912345} for start in starts]


def _result_bytes(chunks: int) -> int:
    transcripts = [
        ChunkTranscript(
            index=index,
            start=index * CHUNK_SECONDS,
            end=(index + 1) * CHUNK_SECONDS,
            overlap=0.0,
            attempts=1,
            seconds=1.5,
            segments=tuple(Segment(**segment) for segment in _segments(index)),
            engine="openvino, 8-bit, avx512_vnni",
        )
        for index in range(chunks)
    ]
    metadata = JobMetadata("0" * 36, datetime.now(UTC), "en", "en", "small-q5_1", "0" * 64, {}, 1.0, 0.1, 0.2, 9.0)
    result = build_result(metadata, transcripts, MergeMethod.SMART)
    return sum(len(formats()[name].export(result)) for name in ("json", "txt"))
