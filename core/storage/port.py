"""The object storage's port: uploads, working audio, results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

OCTETS = "application/octet-stream"


def checked_key(key: str) -> str:
    """The key itself. Raises ValueError where it is no relative path of plain parts: absolute, `..`, `a//b`, NUL."""
    if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"not an object key: {key!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """As `checked_key`, with one `/` allowed at its end: never empty, so nobody deletes everything by mistake."""
    checked_key(prefix.removesuffix("/"))
    return prefix


def header_safe(content_type: str) -> str:
    """A content type that fits into an HTTP header; anything else is stored as plain bytes."""
    return content_type if content_type.isascii() and content_type.isprintable() else OCTETS


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """size in bytes; last_modified in UTC; version: another one where the bytes may be others."""

    key: str
    size: int
    last_modified: datetime
    version: str = ""


class Upload(Protocol):
    """One object being written as its bytes arrive. Nothing is visible under its key before `commit`."""

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes; waits while 4 MiB are on the way. Raises StorageUnavailable, DiskFullError.

        After a cancelled write the object would have a hole, so `commit` refuses it.
        """
        ...

    async def commit(self) -> int:
        """Finish the object; returns its size in bytes. Raises StorageUnavailable, DiskFullError."""
        ...

    async def abort(self) -> None:
        """Leave nothing behind. Harmless twice, after a failed commit, and after commit (where it does nothing).

        A commit that was cancelled may have succeeded all the same: then the object goes. Never raises; what could not
        be removed because the storage is down is left to `delete_prefix` with the exact key.
        """
        ...


class Storage(Protocol):
    """Every adapter passes tests/contract/test_storage.py.

    Keys are `/`-separated relative paths of safe characters; anything else raises ValueError. Vendor errors end here:
    StorageUnavailable (a part is down, try again), ObjectNotFound, ObjectRefusedError, ShortRead and MachineError alone
    get out.
    An answer about one object, such as a denied access, is ObjectRefusedError as long as others are served.
    A finished write is verified: an object whose stored size differs from what was sent raises StorageUnavailable.
    """

    async def start(self) -> None:
        """Make the bucket or directory where it is missing. Raises StorageUnavailable."""
        ...

    async def stop(self) -> None:
        """Release threads and connections; uploads under way are given up. Harmless twice and before start."""
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
        """Exactly `length` bytes from `first` on (None: all that follow).

        Raises ShortRead where the object does not hold that range or the answer has another length, ObjectNotFound,
        StorageUnavailable.
        """
        ...

    async def download(self, key: str, path: Path) -> int:
        """Write the object to a file; returns its size in bytes. A short read raises StorageUnavailable, never passes.

        The bytes are those stored, whatever Content-Encoding says of them. Raises ObjectNotFound, ObjectRefusedError,
        StorageUnavailable; MachineError where the file cannot be written.
        """
        ...

    async def stat(self, key: str) -> ObjectInfo | None: ...

    async def copy(self, source: ObjectInfo, target: str) -> None:
        """Copy exactly this version of the object. Raises ObjectNotFound where it is gone or replaced meanwhile."""
        ...

    async def upload_link(self, key: str, seconds: int) -> str | None:
        """An address that takes the object's bytes with PUT for so long; None: this storage has none of its own."""
        ...

    async def delete(self, key: str) -> None:
        """Harmless where there is no such object."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object, and abort every unfinished multipart upload, whose key starts with `prefix`.

        Returns how many objects went. MinIO finds an unfinished upload surely only by its exact key (by prefix until
        it restarts), so give the key where you know it.
        """
        ...
