"""Plans of every statement that running code sends to PostgreSQL, and their judgement."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import event

from core.database import Database
from tests.contract.filled import GROWING

EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) "
MAX_ROWS, MAX_PAGES = 2_500, 6_000
"""Rows that one node of a plan may read, and pages: those of a batch of 200 rows that moves in every index."""


@dataclass(slots=True)
class Plans:
    """Statements sent so far with their last plans, and the reasons for which plans cost more with more rows."""

    problems: dict[str, set[str]] = field(default_factory=dict)
    statements: dict[str, dict[str, Any]] = field(default_factory=dict)

    def judge(self, statement: str, plan: dict[str, Any]) -> None:
        self.statements[statement] = plan
        if reasons := set(_reasons(plan)):
            self.problems.setdefault(statement, set()).update(reasons)


@contextlib.contextmanager
def recorded_plans(database: Database) -> Iterator[Plans]:
    """Explain each statement with its own parameters just before it runs, in a savepoint that is rolled back."""
    plans = Plans()

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if many or statement.split(None, 1)[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
            return
        cursor = connection.connection.cursor()
        cursor.execute("SAVEPOINT plan")
        cursor.execute(EXPLAIN + statement, parameters)
        ((answer,),) = cursor.fetchall()
        cursor.execute("ROLLBACK TO SAVEPOINT plan")
        cursor.close()
        plans.judge(statement, (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"])

    event.listen(database.engine.sync_engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(database.engine.sync_engine, "before_cursor_execute", explain)


def _reasons(node: dict[str, Any]) -> Iterator[str]:
    for child in node.get("Plans", ()):
        yield from _reasons(child)
    table = node.get("Relation Name", "")
    if table not in GROWING or "Scan" not in node["Node Type"]:
        return
    scan = f"{node['Node Type']} of {table} {node.get('Index Name', '')}".strip()
    if node["Node Type"] == "Seq Scan":
        yield f"{scan}: reads the whole table"
    filtered = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    rows = (node["Actual Rows"] + filtered) * node["Actual Loops"]
    if rows > MAX_ROWS:
        yield f"{scan}: reads more than {MAX_ROWS} rows"
    if node["Shared Hit Blocks"] + node["Shared Read Blocks"] > MAX_PAGES:
        yield f"{scan}: reads more than {MAX_PAGES} pages"
