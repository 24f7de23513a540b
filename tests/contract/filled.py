"""A PostgreSQL database filled as after a long time in use: many ended jobs, and a long queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import asyncpg

from core.database import Database
from migrations.run import upgrade
from tests.servers import postgres
from tests.servers.postgres import Postgres

ENDED, WAITING, RUNNING = 200_000, 20_000, 1_000
"""Numbers of jobs of the tests; each ended one has a chunk, each running one ten."""
SEGMENT = '{"start": 0.0, "end": 4.0, "text": "nine or ten words were said here", "confidence": 0.9}'
GROWING = frozenset({"jobs", "chunks", "metrics", "webhook_deliveries", "upload_intents", "idempotency"})
"""Tables that grow with the number of jobs. All others grow with the number of processes, keys or owners."""

_JOB_ID = "(lpad(to_hex(i), 8, '0') || '-0000-4000-8000-000000000000')::uuid"
_OWNER = "CASE WHEN i % 100 IN (0, 2) THEN 'local' ELSE 'owner-' || i % 1000 END"
ENDED_JOBS = f"""
INSERT INTO jobs (job_id, owner, request_id, status, language, model, asked_model, priority, options, original_filename,
                  minio_audio_path, minio_result_path, file_size_mb, audio_duration_seconds, plan, chunks_total,
                  chunks_completed, claim, event_seq, callback_url, created_at, updated_at, progressed_at, started_at,
                  completed_at, expires_at, deleted_at)
SELECT {_JOB_ID}, {_OWNER}, 'request-' || i,
       CASE WHEN i % 20 = 0 THEN 'FAILED' WHEN i % 50 = 1 THEN 'CANCELLED' ELSE 'COMPLETED' END,
       'en', 'demo-q5_0', '', 'normal', '{{}}', 'a.wav', 'uploads/' || i || '/a.wav', 'results/' || i, 1.0, 30.0, 1, 1,
       1, 1, 2, CASE WHEN i % 10 = 0 THEN 'https://example.org/' END,
       at, at, at, at, at, at + interval '1 day' * CASE WHEN i % 1000 = 7 THEN 0 ELSE 40 END,
       CASE WHEN i % 1000 = 3 THEN at END
  FROM generate_series(1, $1::int) i, LATERAL (SELECT now() - interval '30 days' * (1 - i::float / $1::int) AS at) t
"""
WAITING_JOBS = f"""
INSERT INTO jobs (job_id, owner, status, language, model, asked_model, priority, options, original_filename, media_url,
                  minio_audio_path, file_size_mb, publishes, due_at, put_off_at, created_at, updated_at, queued_at,
                  progressed_at)
SELECT {_JOB_ID}, {_OWNER}, 'PENDING', 'en', 'demo-q5_0', '', 'normal', '{{}}', 'a.wav',
       CASE WHEN i % 10 = 5 THEN 'https://example.org/a.wav' END,
       CASE WHEN i % 10 <> 5 THEN 'uploads/' || i || '/a.wav' END, 1.0, 1, now() + interval '1 hour',
       CASE WHEN i % 20 = 7 THEN at END, at, at, at, at
  FROM generate_series($1::int + 1, $1::int + $2::int) i,
       LATERAL (SELECT now() - interval '1 hour' * (1 - (i - $1::int)::float / $2::int) AS at) t
"""
RUNNING_JOBS = f"""
INSERT INTO jobs (job_id, owner, status, language, model, asked_model, priority, options, original_filename,
                  minio_audio_path, working_audio_path, file_size_mb, audio_duration_seconds, plan, chunks_total,
                  chunks_completed, claim, event_seq, created_at, updated_at, queued_at, progressed_at, started_at)
SELECT {_JOB_ID}, {_OWNER}, 'PROCESSING', 'en', 'demo-q5_0', '', 'normal', '{{}}', 'a.wav', 'uploads/' || i || '/a.wav',
       'work/' || i, 1.0, 300.0, 1, 10, 1, 1, 2, at, at, at, at, at
  FROM generate_series($1::int + 1, $1::int + $2::int) i, LATERAL (SELECT now() - interval '2 hours' AS at) t
"""
CHUNKS = """
INSERT INTO chunks (job_id, chunk_index, plan, spans, start_time, end_time, transcription, status, attempts, claim,
                    publishes, due_at, seconds, event_seq, processed_at, updated_at)
SELECT job_id, n, 1, '[[0, 480000]]', 0.0, 30.0, CASE WHEN n = 0 THEN
         (SELECT jsonb_agg($1::jsonb) FROM generate_series(1, $2::int)) END,
       CASE WHEN n = 0 THEN 'COMPLETED' ELSE 'PENDING' END, 1, (n = 0)::int, 1,
       CASE WHEN n > 0 THEN now() + interval '1 hour' END, 1.0, CASE WHEN n = 0 THEN 2 ELSE 0 END,
       CASE WHEN n = 0 THEN progressed_at END, progressed_at
  FROM jobs, generate_series(0, chunks_total - 1) n WHERE chunks_total IS NOT NULL
"""
METRICS = """
INSERT INTO metrics (job_id, metric_name, metric_value, recorded_at)
SELECT job_id, name, 0.5, completed_at
  FROM jobs, unnest($1::text[]) name WHERE status = 'COMPLETED'
"""
WEBHOOKS = """
INSERT INTO webhook_deliveries (webhook_id, job_id, url, host, owner, event_type, payload, status, due_at, created_at,
                                updated_at)
SELECT 'msg_' || row_number() OVER (), job_id, callback_url, 'host-' || hashtext(owner) % 50, owner,
       'transcription.completed', '{}', CASE WHEN late THEN 'PENDING' ELSE 'COMPLETED' END,
       CASE WHEN late THEN now() + interval '1 hour' END, completed_at, completed_at
  FROM (SELECT *, completed_at > now() - interval '6 days' AS late FROM jobs WHERE callback_url IS NOT NULL) ended
"""
INTENTS = """
INSERT INTO upload_intents (key, job_id, expires_at)
SELECT 'uploads/new/' || i, gen_random_uuid(), now() + interval '1 day' * i / 20000 FROM generate_series(1, 20000) i
"""
IDEMPOTENCY = """
INSERT INTO idempotency (owner, key, request_hash, answer, job_id, expires_at)
SELECT 'owner-' || i % 1000, 'key-' || i, '', '{}', gen_random_uuid(), now() + interval '1 day' * i / 20000
  FROM generate_series(1, 20000) i
"""


@dataclass(frozen=True, slots=True)
class Size:
    """Contents of a filled database. segments: of each finished chunk; metrics: their names, of each completed job."""

    ended: int = ENDED
    waiting: int = WAITING
    running: int = RUNNING
    segments: int = 1
    metrics: tuple[str, ...] = ("real_time_factor", "chunk_seconds", "total_seconds")

    @property
    def ended_id(self) -> str:
        """Id of an ended job of the owner `local`."""
        return job_id(100)

    @property
    def waiting_id(self) -> str:
        """Id of the job that has waited for the shortest time."""
        return job_id(self.ended + self.waiting)

    @property
    def running_id(self) -> str:
        return job_id(self.ended + self.waiting + self.running)


def job_id(number: int) -> str:
    """Return the id of a job: ended ones first, then waiting ones, then running ones, from 1.

    Jobs with numbers 0 and 2 modulo 100 are of the owner `local`.
    """
    return f"{number:08x}-0000-4000-8000-000000000000"


@contextlib.contextmanager
def filled_database(server: Postgres, size: Size) -> Iterator[str]:
    """Create a filled and analysed database; yield its URL, and drop it in the end."""
    url = postgres.create_database(server.url)
    try:
        asyncio.run(fill(url, size))
        yield url.replace("postgresql://", "postgresql+asyncpg://")
    finally:
        postgres.drop_database(server.url, url)


async def fill(url: str, size: Size) -> None:
    """Create the schema in an empty database, fill the tables and analyse them."""
    database = Database(url.replace("postgresql://", "postgresql+asyncpg://"))
    await upgrade(database)
    await database.stop()
    connection = await asyncpg.connect(url)
    try:
        # without checks of foreign keys, which would take most of the time
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(ENDED_JOBS, size.ended)
        await connection.execute(WAITING_JOBS, size.ended, size.waiting)
        await connection.execute(RUNNING_JOBS, size.ended + size.waiting, size.running)
        await connection.execute(CHUNKS, SEGMENT, size.segments)
        await connection.execute(METRICS, size.metrics)
        for statement in (WEBHOOKS, INTENTS, IDEMPOTENCY):
            await connection.execute(statement)
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()
