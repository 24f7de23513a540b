"""Database access for PostgreSQL (asyncpg) and SQLite (aiosqlite): sessions, the clock, and error translation.

Transactions are short; none is open while audio is processed. In SQLite a lock serialises the writes of this process,
and each begins IMMEDIATE, so that it does not fail half-way because the database is locked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from asyncpg import InterfaceError, PostgresError
from sqlalchemy import BigInteger, DateTime, Float, bindparam, event, text
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from core.call_metrics import count_call
from core.errors import DatabaseUnavailable, InternalError

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_IMMEDIATE = "stt_immediate"
_UNCHECKED = "stt_unchecked"
SQLITE_POOL = 15
"""Connections to one file. Each has a thread."""
CONNECTIONS = 6
"""Connections of a process to PostgreSQL by default."""
_UNPREPARED: dict[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}
"""Options of a connection that uses the unnamed statement only, prepared and executed in one transaction."""


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC time. SQLite stores integer microseconds since 1970, so that arithmetic is exact."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(BigInteger() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return (value.astimezone(UTC) - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "sqlite":
            return _EPOCH + int(value) * _MICROSECOND
        instant: datetime = value
        return instant.astimezone(UTC)


class after(FunctionElement[datetime]):
    """SQL expression for the time `seconds` from now, by the clock of the database, or of this process for SQLite.

    seconds: a number or a column expression.
    """

    type = UtcDateTime()
    inherit_cache = True
    name = "after"

    def __init__(self, seconds: float | ColumnElement[Any] = 0.0) -> None:
        offset = seconds if isinstance(seconds, ColumnElement) else bindparam(None, float(seconds), type_=Float())
        now = bindparam(None, (datetime.now(UTC) - _EPOCH) // _MICROSECOND, type_=BigInteger())
        super().__init__(offset, now)


@compiles(after, "postgresql")
def _after_postgresql(element: after, compiler: Any, **kw: Any) -> str:
    # now() is the start of the transaction, and clock_timestamp() cannot use an index
    seconds = compiler.process(next(iter(element.clauses)), **kw)
    return f"(statement_timestamp() + make_interval(secs => CAST({seconds} AS double precision)))"


@compiles(after, "sqlite")
def _after_sqlite(element: after, compiler: Any, **kw: Any) -> str:
    seconds, now = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({now} + CAST(({seconds}) * 1000000 AS INTEGER))"


class Database:
    """An engine and its sessions. `read()` and `write()` are transactions.

    Errors of the driver become DatabaseUnavailable; IntegrityError passes through.
    """

    def __init__(
        self,
        url: str,
        *,
        connections: int = CONNECTIONS,
        prepared_statements: bool = True,
        statement_seconds: float | None = 30.0,
    ) -> None:
        """Open no connection yet. All parameters but `url` are for PostgreSQL only.

        connections: maximum number; prepared_statements: keep statements prepared, which PgBouncer does not allow in
        transaction mode; statement_seconds: maximum duration of a statement, None without limit.
        """
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self.prepared_statements = prepared_statements
        options = {"timeout": 5, "command_timeout": statement_seconds, **({} if prepared_statements else _UNPREPARED)}
        self.engine = _sqlite_engine(url) if self.sqlite else _postgresql_engine(url, connections, options)
        session_class = _UninterruptedSession if self.sqlite else AsyncSession
        self._sessions = async_sessionmaker(self.engine, class_=session_class, expire_on_commit=False)
        self._writer = asyncio.Lock()
        self._max_connections = SQLITE_POOL if self.sqlite else connections

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction for queries. It is not committed. Raises DatabaseUnavailable."""
        with count_call("database", "read"):
            async with _translate_errors(), self._sessions() as session:
                yield session

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncSession]:
        """Open a read-only transaction in which all queries see the same state. Raises DatabaseUnavailable.

        While it is open, PostgreSQL cannot clean up rows that were changed since.
        """
        async with self.read() as session:
            if not self.sqlite:  # a transaction of SQLite sees one state anyway
                options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                await session.connection(execution_options=options)
            yield session

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction that is committed at the end; an exception rolls it back. Raises DatabaseUnavailable."""
        async with self._write({_IMMEDIATE: True}) as session:
            yield session

    @contextlib.asynccontextmanager
    async def alter(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction as `write`, for changes of the schema.

        SQLite replaces a table by copying it, and dropping the old one would delete the rows that refer to it. So it
        does not check references here.
        """
        async with self._write({_IMMEDIATE: True, _UNCHECKED: True}) as session:
            yield session

    @contextlib.asynccontextmanager
    async def _write(self, options: dict[str, Any]) -> AsyncIterator[AsyncSession]:
        lock = self._writer if self.sqlite else contextlib.nullcontext()
        with count_call("database", "write"):
            async with lock, _translate_errors(), self._sessions() as session:
                await session.connection(execution_options=options)
                yield session
                await session.commit()

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection without a transaction, for migrations. Raises DatabaseUnavailable."""
        async with _translate_errors(), self.engine.connect() as connection:
            yield connection

    async def ping(self) -> None:
        """Check that the database responds within 2 s. Raises DatabaseUnavailable."""
        async with self.read() as session, asyncio.timeout(2):
            await session.execute(text("SELECT 1"))

    @property
    def exhausted(self) -> bool:
        """True if all connections of the pool are in use."""
        pool = self.engine.pool
        return isinstance(pool, QueuePool) and pool.checkedout() >= self._max_connections

    async def stop(self) -> None:
        await self.engine.dispose()


class _UninterruptedSession(AsyncSession):
    """A session whose operations finish before a cancellation of their caller takes effect.

    SQLite's driver runs in a thread that continues if its caller is cancelled. A transaction cancelled while it begins,
    executes or rolls back would keep the write lock until the process exits.
    """

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        return await _uninterrupted(super().execute(*args, **kwargs))

    async def connection(self, *args: Any, **kwargs: Any) -> AsyncConnection:
        return await _uninterrupted(super().connection(*args, **kwargs))

    async def commit(self) -> None:
        await _uninterrupted(super().commit())

    async def rollback(self) -> None:
        await _uninterrupted(super().rollback())

    async def close(self) -> None:
        await _uninterrupted(super().close())


async def _uninterrupted(step: Coroutine[Any, Any, T]) -> T:
    task = asyncio.create_task(step)
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task.exception()  # mark as retrieved; the caller gets the cancellation
        raise asyncio.CancelledError
    return task.result()


@contextlib.asynccontextmanager
async def _translate_errors() -> AsyncIterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except DataError as error:
        # the database rejected a value: not an outage, so waiting would not help
        raise InternalError from error
    except (DBAPIError, PoolTimeout, PostgresError, InterfaceError, OSError, TimeoutError) as error:
        # errors of the driver while it connects are not wrapped by SQLAlchemy
        raise DatabaseUnavailable from error


@contextlib.contextmanager
def rejected_values() -> Iterator[None]:
    """Turn the rejection of a value, by its type or by the database, into a ValueError. Other errors pass through."""
    try:
        yield
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from error
    except StatementError as error:
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        if lost or isinstance(error, OperationalError):
            raise
        raise ValueError(str(error)) from error


def _loads(text: str | bytes) -> Any:
    """Decode a JSON column; return None if it is nested too deeply or has a number too long for this parser.

    A different parser may have accepted such a value, and the rest of its row must stay readable.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError):
        return None


def _postgresql_engine(url: str, connections: int, options: dict[str, Any]) -> AsyncEngine:
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        json_deserializer=_loads,
        connect_args=options,
    )


def _sqlite_engine(url: str) -> AsyncEngine:
    path = url.partition(":///")[2]
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url, hide_parameters=True, pool_size=SQLITE_POOL, max_overflow=0, json_deserializer=_loads
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN would not be IMMEDIATE
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _on_begin(connection: Any) -> None:
        options = connection.get_execution_options()
        immediate, unchecked = options.get(_IMMEDIATE), options.get(_UNCHECKED, False)
        if unchecked or connection.info.get(_UNCHECKED):  # a transaction cannot change it
            connection.exec_driver_sql(f"PRAGMA foreign_keys={'OFF' if unchecked else 'ON'}")
            connection.info[_UNCHECKED] = unchecked
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
