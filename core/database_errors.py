"""Descriptions of database errors, each with a remedy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import asyncpg
from sqlalchemy.exc import TimeoutError as PoolTimeout

UNREACHABLE = "unreachable: start the server, and check host and port in DATABASE_URL"
SLOW = "timed out: check the server's load, its locks and the network"
EXHAUSTED = "connection pool exhausted: all connections are in use; check for slow statements and locks"
PASSWORD = "wrong user or password: check DATABASE_URL"
NO_DATABASE = "no such database: create it, or check the name in DATABASE_URL"
TOO_MANY = "the server has too many connections: raise its max_connections, or run fewer processes"
STARTING = "the server is starting or stopping: wait, or check its log"
FULL = "its disk is full: free some space"
READ_ONLY = "read-only: check the file's permissions, or if the server is a standby"
LOCKED = "locked by another process: check which process has the file open"
DAMAGED = "the file is damaged or not a database: restore a backup"
NO_FILE = "the file cannot be opened: check DATA_DIR, DATABASE_URL and the file's permissions"
NO_SCHEMA = "no schema, run `make migrate`"
OTHER_SCHEMA = "its schema is of another version, run `make migrate`"
DENIED = "permission denied: grant the user access to the tables"
UNKNOWN = "unknown error: check the log"

_POSTGRESQL: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, PASSWORD),
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
    """Return the description of the innermost known error among the causes."""
    for cause in _causes(error):
        description = _describe_one(cause)
        if description is not None:
            return description
    return UNKNOWN


def _describe_one(error: BaseException) -> str | None:
    if isinstance(error, PoolTimeout):
        return EXHAUSTED
    for kind, text in _POSTGRESQL:
        if isinstance(error, kind):
            return text
    if isinstance(error, TimeoutError | asyncio.CancelledError):
        return SLOW
    if isinstance(error, ConnectionError | socket.gaierror | OSError):
        return UNREACHABLE
    if "sqlite" in type(error).__module__:
        return next((text for words, text in _SQLITE if words in str(error)), None)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes, innermost first: that one is the driver's own error."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = getattr(cause, "orig", None) or cause.__cause__ or cause.__context__
    return reversed(causes)
