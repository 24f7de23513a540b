"""Connections of the S3 client: timeouts and retries."""

from __future__ import annotations

from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
"""Seconds for the server to accept one part of an upload, and for the start of its response."""


class _SendTimeoutConnection(HTTPConnection):
    """A connection that sends requests under the read timeout.

    urllib3 sends them under the connect timeout, in which 8 MiB would need a link of 13 Mbit/s.
    """

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        self.timeout = READ_TIMEOUT
        super().request(*args, **kwargs)


class _SendTimeoutTLSConnection(_SendTimeoutConnection, HTTPSConnection):
    """A TLS connection that sends requests under the read timeout."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _SendTimeoutConnection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SendTimeoutTLSConnection


def connections(threads: int, *, read_timeout: float | None = None, tries: int = 2) -> PoolManager:
    """Return a pool with one connection per thread. read_timeout: seconds; tries: per request, 1 for a POST."""
    retries = Retry(total=tries - 1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504), raise_on_status=False)
    timeout = Timeout(connect=CONNECT_TIMEOUT, read=read_timeout or READ_TIMEOUT)
    manager = PoolManager(maxsize=threads, timeout=timeout, retries=retries)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager
