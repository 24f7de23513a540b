"""Names what is wrong with the database, and what to do about it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeout

UNREACHABLE = "unreachable: start it, and check host and port in DATABASE_URL"
SLOW = "no answer in time: look at its load, its locks and the network"
EXHAUSTED = "connection pool exhausted: every connection is in use; look for slow statements and locks"
PASSWORD = "wrong user or password: check DATABASE_URL"
NO_DATABASE = "no such database: create it, or check the name in DATABASE_URL"
TOO_MANY = "the server has too many connections: raise its max_connections, or run fewer processes"
STARTING = "the server is starting or stopping: wait, or look at its log"
FULL = "its disk is full: make room"
READ_ONLY = "read-only: check the file's permissions, or whether this server is a standby"
LOCKED = "locked by another process: see what else has the file open"
DAMAGED = "the file is damaged or no database: restore a backup"
NO_FILE = "the file cannot be opened: check DATA_DIR or DATABASE_URL, and permissions"
NO_SCHEMA = "no schema, run `make migrate`"
OTHER_SCHEMA = "its tables are not those of this version, run `make migrate`"
DENIED = "permission denied: grant the user its tables"
UNKNOWN = "error: see the log"

_POSTGRESQL: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, PASSWORD),  # a wrong password is one of these
    (asyncpg.InvalidCatalogNameError, NO_DATABASE),
    (asyncpg.TooManyConnectionsError, TOO_MANY),
    ((asyncpg.CannotConnectNowError, asyncpg.AdminShutdownError, asyncpg.CrashShutdownError), STARTING),
    (asyncpg.DiskFullError, FULL),
    (asyncpg.ReadOnlySQLTransactionError, READ_ONLY),
    (asyncpg.InsufficientPrivilegeError, DENIED),
    (asyncpg.UndefinedTableError, NO_SCHEMA),
    ((asyncpg.UndefinedColumnError, asyncpg.DatatypeMismatchError), OTHER_SCHEMA),
    (asyncpg.QueryCanceledError, SLOW),
    (asyncpg.PostgresConnectionError, UNREACHABLE),
)
_SQLITE = (
    ("no such table", NO_SCHEMA),
    ("no such column", OTHER_SCHEMA),
    ("database is locked", LOCKED),
    ("unable to open database", NO_FILE),
    ("readonly database", READ_ONLY),
    ("disk is full", FULL),
    ("malformed", DAMAGED),
    ("not a database", DAMAGED),
)


def describe(error: BaseException) -> str:
    """The trouble behind an error, found in its causes."""
    for cause in _causes(error):
        found = _one(cause)
        if found is not None:
            return found
    return UNKNOWN


def _one(error: BaseException) -> str | None:
    if isinstance(error, PoolTimeout):
        return EXHAUSTED
    for kind, text in _POSTGRESQL:
        if isinstance(error, kind):
            return text
    if isinstance(error, TimeoutError | asyncio.CancelledError):
        return SLOW
    if isinstance(error, ConnectionError | socket.gaierror | OSError):
        return UNREACHABLE
    return next((text for words, text in _SQLITE if words in str(error)), None) if "sqlite" in _module(error) else None


def _module(error: BaseException) -> str:
    return type(error).__module__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The innermost first: it is the driver's own."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = getattr(cause, "orig", None) or cause.__cause__ or cause.__context__
    return reversed(found)
