"""Indexes of tables that grow: created and dropped in PostgreSQL without blocking the writers of the table."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def create(name: str, table: str, columns: list[str], where: str | None = None) -> None:
    """Create an index, partial if `where` is given; in PostgreSQL CONCURRENTLY, unless the table is empty.

    The migration's transaction is committed before. What an interrupted attempt has left is replaced.
    """
    condition = None if where is None else sa.text(where)
    if not _has_rows(table):
        op.create_index(name, table, columns, postgresql_where=condition, sqlite_where=condition)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
        op.create_index(name, table, columns, postgresql_where=condition, postgresql_concurrently=True)


def drop(name: str, table: str) -> None:
    """Drop an index; in PostgreSQL CONCURRENTLY, unless the table is empty."""
    if not _has_rows(table):
        op.drop_index(name, table_name=table, if_exists=True)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)


def _has_rows(table: str) -> bool:
    """Return True if this is a table of PostgreSQL with rows."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return False
    return bool(connection.scalar(sa.text(f"SELECT EXISTS (SELECT 1 FROM {table})")))
