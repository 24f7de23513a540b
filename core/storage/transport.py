"""The connections under the S3 client: how long to wait, how often to try."""

from __future__ import annotations

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
"""Seconds that a server may take to accept one part of an upload, and to begin an answer."""


class _Patient(HTTPConnection):
    """The connect timeout also bounds sending on a new connection: a part of 8 MiB would need 13 Mbit/s or fail."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT)


class _PatientSecure(HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(READ_TIMEOUT)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Patient


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _PatientSecure


def connections(threads: int, *, read_timeout: float | None = None, tries: int = 2) -> PoolManager:
    """One connection for each of `threads`. Only what can be repeated is tried again: never a POST."""
    retries = Retry(total=tries - 1, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504), raise_on_status=False)
    timeout = Timeout(connect=CONNECT_TIMEOUT, read=read_timeout or READ_TIMEOUT)
    manager = PoolManager(maxsize=threads, timeout=timeout, retries=retries)
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return manager
