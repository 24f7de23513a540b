"""Rows and bytes that a job leaves behind in the database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import asyncpg

from tests.benchmarks.scale.stores import Stores

QUERY = """
SELECT relname, reltuples::bigint, pg_relation_size(oid) + COALESCE(pg_relation_size(NULLIF(reltoastrelid, 0)), 0),
       pg_indexes_size(oid)
  FROM pg_class WHERE relname = ANY($1::text[]) AND relkind = 'r'
"""
TABLES = ("jobs", "chunks", "metrics", "webhook_deliveries")
"""Tables with rows of ended jobs. Intents and idempotency keys are deleted within a day."""


@dataclass(frozen=True, slots=True)
class Table:
    """Size of a table. data, indexes: bytes."""

    name: str
    rows: int
    data: int
    indexes: int


def measure(stores: Stores) -> list[Table]:
    """Return the tables that grow with the number of jobs, largest first."""
    found = [Table(*row) for row in asyncio.run(_fetch(stores.url))]
    return sorted(found, key=lambda table: -(table.data + table.indexes))


async def _fetch(url: str) -> list[tuple[str, int, int, int]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(QUERY, TABLES)]
    finally:
        await connection.close()
