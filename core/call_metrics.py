"""Counts and durations of the calls of dependencies, by outcome."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from core.errors import InfrastructureError
from core.metrics import CALL_SECONDS, CALLS

T = TypeVar("T")
STORAGE_OPERATIONS = {
    name: name
    for name in (
        *("ping", "open_upload", "put_bytes", "put_file", "get_bytes", "download", "stat", "copy", "upload_link"),
        *("delete", "delete_many", "delete_prefix"),
    )
}
BROKER_OPERATIONS = {
    "ping": "ping",
    "publish_raw": "publish",
    "consume": "consume",
    "walk_dead_letters": "walk_dead_letters",
    "stats": "stats",
}
"""Method of an adapter to the operation in the metrics."""


@contextmanager
def count_call(dependency: str, operation: str) -> Iterator[None]:
    """Count and time the block. Outcomes: ok, unavailable, cancelled, and error for every other exception."""
    started, outcome = time.monotonic(), "ok"
    try:
        yield
    except InfrastructureError:
        outcome = "unavailable"
        raise
    except asyncio.CancelledError:
        outcome = "cancelled"
        raise
    except Exception:
        outcome = "error"
        raise
    finally:
        CALLS.labels(dependency, operation, outcome).inc()
        CALL_SECONDS.labels(dependency, operation).observe(time.monotonic() - started)


def counted(dependency: str, operations: Mapping[str, str]) -> Callable[[type[T]], type[T]]:
    """Return a class decorator that counts and times methods of an adapter. operations: label by method."""

    def decorate(adapter: type[T]) -> type[T]:
        for method, operation in operations.items():
            setattr(adapter, method, _counted(dependency, operation, getattr(adapter, method)))
        return adapter

    return decorate


def _counted(dependency: str, operation: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        with count_call(dependency, operation):
            return await method(*args, **kwargs)

    return call
