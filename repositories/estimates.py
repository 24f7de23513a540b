"""Estimates of numbers of rows, for figures whose exact value would cost more as the tables grow."""

from __future__ import annotations

import json

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def estimated_rows(session: AsyncSession, rows: str) -> int:
    """Return the number of rows of a table, which may be followed by WHERE and a condition without outside values.

    In PostgreSQL it is the planner's estimate from the table's present size and its last ANALYZE, which reads no rows;
    SQLite counts.
    """
    if session.get_bind().dialect.name != "postgresql":
        return int((await session.execute(text(f"SELECT count(*) FROM {rows}"))).scalar_one())
    answer = (await session.execute(text(f"EXPLAIN (FORMAT JSON) SELECT 1 FROM {rows}"))).scalar_one()
    plan = json.loads(answer) if isinstance(answer, str) else answer
    return int(plan[0]["Plan"]["Plan Rows"])
