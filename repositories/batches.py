"""Batches: rows that one statement selects, locks and changes, of which several schedulers get different ones."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select


def locked(rows: Select[*tuple[Any, ...]], of: Any = None) -> Select[*tuple[Any, ...]]:
    """Return the rows, which have a limit, for an UPDATE or DELETE by their keys; rows locked by others are skipped.

    In a plain subquery PostgreSQL may select again for each row that it compares, beyond the limit: those selected
    before are locked and skipped. It runs a query that is named and locks rows once.
    """
    return select(*rows.with_for_update(skip_locked=True, of=of).cte("batch").c)
