"""The object storage's port: uploads, working audio, results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

OCTETS = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """size in bytes; last_modified in UTC."""

    key: str
    size: int
    last_modified: datetime


class Upload(Protocol):
    """One object being written as its bytes arrive. Nothing is visible under its key before `commit`."""

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes; waits while 4 MiB are on the way. Raises StorageUnavailable, DiskFullError."""
        ...

    async def commit(self) -> int:
        """Finish the object; returns its size in bytes. Raises StorageUnavailable, DiskFullError."""
        ...

    async def abort(self) -> None:
        """Leave nothing behind. Harmless twice, after a failed commit, and after commit (where it does nothing)."""
        ...


class Storage(Protocol):
    """Every adapter passes tests/contract/test_storage.py.

    Keys are `/`-separated relative paths of safe characters. Vendor errors end here: StorageUnavailable (a part is
    down, try again), ObjectNotFound and DiskFullError alone get out.
    """

    async def start(self) -> None:
        """Make the bucket or directory where it is missing. Raises StorageUnavailable."""
        ...

    async def stop(self) -> None:
        """Release threads and connections. Harmless twice and before start."""
        ...

    async def ping(self) -> None:
        """Raises StorageUnavailable unless the bucket answers."""
        ...

    async def open_upload(self, key: str, content_type: str = OCTETS) -> Upload:
        """Raises TooManyUploads when MAX_CONCURRENT_UPLOADS are under way."""
        ...

    async def put_bytes(self, key: str, data: bytes, content_type: str = OCTETS) -> None: ...

    async def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> None: ...

    async def get_bytes(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        """`length` bytes from `first` on (None: to the end). Raises ObjectNotFound, StorageUnavailable."""
        ...

    async def download(self, key: str, path: Path) -> int:
        """Write the object to a file; returns its size. A short read raises StorageUnavailable, never passes."""
        ...

    async def stat(self, key: str) -> ObjectInfo | None: ...

    async def delete(self, key: str) -> None:
        """Harmless where there is no such object."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object, and abort every unfinished multipart upload, whose key starts with `prefix`.

        Returns how many objects went.
        """
        ...
