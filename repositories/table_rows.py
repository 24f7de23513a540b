"""Rows of all tables in a form that is the same in both databases, for backups.

A row is a list of JSON values in the order of its columns. Times are microseconds since 1970; JSON columns are texts,
so that JSON's null differs from SQL's and numbers keep their digits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import JSON, TypeEngine

from core.database import UtcDateTime, rejected_values
from repositories.models import Base, JobOptionsJson, RateLimit, Worker

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
FETCH = 200
"""Rows that are fetched at a time."""
TIME, JSON_TEXT, UUID, BOOL, FLOAT, INT, TEXT = "time", "json", "uuid", "bool", "float", "int", "text"
_TYPES: Mapping[str, TypeEngine[Any]] = {
    TIME: UtcDateTime(),
    JSON_TEXT: Text(),
    UUID: Uuid(as_uuid=False),
    BOOL: Boolean(),
    FLOAT: Float(),
    INT: BigInteger(),
    TEXT: Text(),
}
PREFIX = "value_"
"""Start of the parameters' names: SQLAlchemy reserves those of the columns."""
KINDS = frozenset(_TYPES)
VERSION_TABLE = "alembic_version"
TRANSIENT = frozenset({Worker.__tablename__, RateLimit.__tablename__})
"""Tables whose rows are of use to running processes only."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a table at some revision: pairs of name and kind. The first ones are ordered by."""

    table: str
    columns: tuple[tuple[str, str], ...]


def all_columns() -> list[Columns]:
    """Return the columns of every table of this version, so that each comes after those that it refers to."""
    return [
        Columns(known.name, tuple((item.name, _kind(item)) for item in known.columns))
        for known in Base.metadata.sorted_tables
    ]


def _kind(item: Column[Any]) -> str:
    kinds: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (UtcDateTime, TIME),
        ((JSON, JobOptionsJson), JSON_TEXT),
        (Uuid, UUID),
        (Boolean, BOOL),
        (Float, FLOAT),
        (Integer, INT),
    )
    return next((kind for types, kind in kinds if isinstance(item.type, types)), TEXT)


async def read_rows(session: AsyncSession, columns: Columns) -> AsyncIterator[list[Any]]:
    """Yield the rows of a table. Run in a snapshot, so that all tables belong together. Raises DatabaseUnavailable."""
    known = Base.metadata.tables[columns.table]
    selected = [
        cast(known.c[name], Text).label(name) if kind == JSON_TEXT else known.c[name] for name, kind in columns.columns
    ]
    times = [index for index, (_, kind) in enumerate(columns.columns) if kind == TIME]
    statement = select(*selected).execution_options(yield_per=FETCH)
    async for row in await session.stream(statement):
        values = list(row)
        for index in times:
            if values[index] is not None:
                values[index] = (values[index] - _EPOCH) // _MICROSECOND
        yield values


async def insert_rows(session: AsyncSession, columns: Columns, rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows as `read_rows` yields them, into a table that may be of an older revision.

    Raises ValueError for rows that the table does not accept.
    """
    postgresql = session.get_bind().dialect.name == "postgresql"
    target = table(columns.table, *(column(name, _TYPES[kind]) for name, kind in columns.columns))
    values = {name: _parameter(name, kind, postgresql) for name, kind in columns.columns}
    times = {name for name, kind in columns.columns if kind == TIME}
    with rejected_values():
        parameters = [
            {PREFIX + name: _value(name in times, value) for (name, _), value in zip(columns.columns, row, strict=True)}
            for row in rows
        ]
        await session.execute(insert(target).values(values), parameters)


def _parameter(name: str, kind: str, postgresql: bool) -> ColumnElement[Any]:
    parameter = bindparam(PREFIX + name, type_=_TYPES[kind])
    return cast(parameter, JSONB) if kind == JSON_TEXT and postgresql else parameter


def _value(time: bool, value: Any) -> Any:
    return _EPOCH + value * _MICROSECOND if time and value is not None else value


async def has_rows(session: AsyncSession) -> bool:
    """Return True if a table has a row that a restore would delete. A database without tables has none."""
    names = await (await session.connection()).run_sync(table_names)
    for known in Base.metadata.sorted_tables:
        if known.name in names and known.name not in TRANSIENT:
            any_row = exists(select(text("1")).select_from(table(known.name)))
            if (await session.execute(select(any_row))).scalar_one():
                return True
    return False


def table_names(connection: Connection) -> set[str]:
    """Return the names of all tables but Alembic's own."""
    return set(inspect(connection).get_table_names()) - {VERSION_TABLE}


def drop_tables(connection: Connection) -> None:
    """Drop the service's own tables, whatever their revision."""
    ours = {known.name for known in Base.metadata.sorted_tables} | {VERSION_TABLE}
    present = MetaData()
    present.reflect(connection, only=lambda name, _: name in ours)
    present.drop_all(connection)


async def delete_rows(session: AsyncSession) -> None:
    """Delete the rows of the service's own tables, at any revision."""
    names = await (await session.connection()).run_sync(table_names)
    for known in reversed(Base.metadata.sorted_tables):
        if known.name in names:
            await session.execute(delete(known))


async def restart_sequences(session: AsyncSession) -> None:
    """Let generated numbers continue after the greatest one of each table. SQLite does so by itself."""
    if session.get_bind().dialect.name != "postgresql":
        return
    names = await (await session.connection()).run_sync(table_names)
    for known in Base.metadata.sorted_tables:
        number = known.autoincrement_column
        if number is not None and isinstance(known, Table) and known.name in names:
            sequence = func.pg_get_serial_sequence(known.name, number.name)
            greatest = select(func.max(number)).scalar_subquery()
            await session.execute(select(func.setval(sequence, func.coalesce(greatest, 1))))
