"""The port of the object storage, which holds uploads, working audio and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

OCTETS = "application/octet-stream"


def checked_key(key: str) -> str:
    """Return the key. Raises ValueError if it contains NUL, or a part that is empty, `.` or `..`."""
    if "\0" in key or any(part in ("", ".", "..") for part in key.split("/")):
        raise ValueError(f"not an object key: {key!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """Return the prefix, a key that may end in `/`. Raises ValueError; an empty prefix would delete everything."""
    checked_key(prefix.removesuffix("/"))
    return prefix


def header_safe(content_type: str) -> str:
    """Return the content type if it is valid in an HTTP header, else `application/octet-stream`."""
    return content_type if content_type.isascii() and content_type.isprintable() else OCTETS


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Metadata of an object. size in bytes; last_modified in UTC; version: a string that changes with the content."""

    key: str
    size: int
    last_modified: datetime
    version: str = ""


class Upload(Protocol):
    """A streamed write of one object, which is not visible before `commit`."""

    async def write(self, data: bytes) -> None:
        """Write the next bytes. At most 4 MiB are buffered. Raises StorageUnavailable, DiskFullError.

        A cancelled write may leave a gap, so `commit` fails afterwards.
        """
        ...

    async def commit(self) -> int:
        """Finish the object and return its size in bytes. Raises StorageUnavailable, DiskFullError."""
        ...

    async def abort(self) -> None:
        """Remove everything written. Idempotent; does nothing after a commit.

        If a cancelled commit has succeeded, the object is deleted. Never raises. What cannot be removed while the
        storage is unavailable is left to `delete_prefix` with the exact key.
        """
        ...


class Storage(Protocol):
    """An object storage. Every adapter passes tests/contract/test_storage.py.

    Keys are `/`-separated relative paths; other keys raise ValueError. Adapters raise only StorageUnavailable (try
    again), ObjectNotFound, ObjectRefusedError, ShortRead, TooManyUploads and MachineError. An error about one object,
    such as denied access, is ObjectRefusedError as long as other objects are served. Writes are verified: if the stored
    size differs from the size sent, they raise StorageUnavailable.
    """

    async def start(self) -> None:
        """Create the bucket or folder if it does not exist. Raises StorageUnavailable."""
        ...

    async def stop(self) -> None:
        """Release threads and connections, and abort running uploads. Idempotent; allowed before `start`."""
        ...

    async def ping(self) -> None:
        """Check that the bucket or folder is accessible. Raises StorageUnavailable."""
        ...

    async def open_upload(self, key: str, content_type: str = OCTETS) -> Upload:
        """Start an upload. Raises TooManyUploads if `max_uploads` are in progress."""
        ...

    async def put_bytes(self, key: str, data: bytes, content_type: str = OCTETS) -> None: ...

    async def put_file(self, key: str, path: Path, content_type: str = OCTETS) -> None:
        """Store a file. It may become the object itself, so it must not change afterwards."""
        ...

    async def get_bytes(self, key: str, first: int = 0, length: int | None = None) -> bytes:
        """Return exactly `length` bytes (None: all) starting at byte `first`.

        Raises ShortRead if the object is too short or the response has another length, ObjectNotFound,
        StorageUnavailable.
        """
        ...

    async def download(self, key: str, path: Path) -> int:
        """Make the object available as the file `path`, which must not exist, and return its size in bytes.

        The file is a copy or a link: read it only, while the object exists. The bytes are as stored, whatever their
        Content-Encoding. Raises ObjectNotFound, ObjectRefusedError, StorageUnavailable (also for a short read), and
        MachineError if the file cannot be written.
        """
        ...

    async def stat(self, key: str) -> ObjectInfo | None:
        """Return the metadata of the object, or None if it does not exist."""
        ...

    async def copy(self, source: ObjectInfo, target: str) -> None:
        """Copy exactly this version of the object. Raises ObjectNotFound if it was deleted or replaced."""
        ...

    async def upload_link(self, key: str, seconds: int) -> str | None:
        """Return a URL to which the object can be PUT for `seconds`, or None if the storage has no URLs."""
        ...

    async def delete(self, key: str) -> None:
        """Delete the object if it exists."""
        ...

    async def delete_many(self, keys: Sequence[str]) -> None:
        """Delete the objects that exist, in few requests. If one cannot be deleted, raise StorageUnavailable."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Delete all objects, and abort all unfinished multipart uploads, whose key starts with `prefix`.

        Returns the number of deleted objects. After a restart MinIO finds unfinished uploads by their exact key only,
        so pass the key if it is known.
        """
        ...
