"""Manifest of a backup, and lists of JSON values in sealed files.

What is read is checked value by value: the folder may come from somebody else, with the key.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.storage.port import checked_key
from internal.backup.folder import MANIFEST, Folder, damaged
from internal.backup.sealing import Sealer

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of one row; the longest are transcripts of hours, about a megabyte."""
_MANIFEST_BYTES = 4 * 1024 * 1024
_BLOCK = 1024 * 1024
OBJECTS = "objects"


class Section(BaseModel):
    """A list in a file of its own. columns: of a table, pairs of name and kind."""

    model_config = ConfigDict(extra="ignore", strict=True)

    rows: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    columns: list[tuple[str, str]] = Field(default=[], strict=False)


class Manifest(BaseModel):
    """Description of a finished backup.

    revision: of the schema; bytes: of all objects; secret: the generated SECRET_KEY, if none was configured;
    fingerprint: shows whether another service has the same one; missing: objects that a job names and the storage lost.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    name: str
    version: str
    revision: str = Field(pattern=r"^[0-9]{4}$")
    created_at: str
    tables: dict[str, Section]
    objects: Section
    bytes: int = Field(ge=0)
    missing: int = Field(ge=0)
    fingerprint: str
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of a backup. version: that of the storage; content: name among the contents; None: it is not there.

    lost: without content, the storage had lost it; otherwise it was deleted while the backup was made.
    """

    key: str
    job_id: str
    size: int = 0
    version: str = ""
    content: str | None = None
    lost: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class ListWriter:
    """Writes JSON values as compressed lines, and counts them."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer, self._zip = sealer, zlib.compressobj(1)
        self._digest, self.rows = hashlib.sha256(), 0

    def write(self, values: list[Any]) -> None:
        """Write values, each on a line. Raises OSError."""
        data = b"".join(
            json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass") + b"\n" for value in values
        )
        self._digest.update(data)
        self._sealer.write(self._zip.compress(data))
        self.rows += len(values)

    def finish(self, columns: tuple[tuple[str, str], ...] = ()) -> Section:
        self._sealer.write(self._zip.flush())
        return Section(rows=self.rows, sha256=self._digest.hexdigest(), columns=list(columns))


def label(backup: str, file: str) -> str:
    """Return the label under which a file of a backup is sealed."""
    return f"{backup}/{file}"


def read_list(folder: Folder, backup: str, file: str, section: Section) -> Iterator[Any]:
    """Yield the values of a list; whether it is complete is known at the end. Raises BackupDamagedError.

    No more than a line is unpacked at a time, and no more lines than the manifest says.
    """
    path = folder.backup_path(backup) / file
    digest, rows = hashlib.sha256(), 0
    for line in _lines(folder.read(path, label(backup, file)), file):
        digest.update(line)
        rows += 1
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise damaged(file) from None
        if rows > section.rows:
            raise damaged(file)
        yield value
    if (rows, digest.hexdigest()) != (section.rows, section.sha256):
        raise damaged(file)


def _lines(blocks: Iterator[bytes], file: str) -> Iterator[bytes]:
    unpacking, rest = zlib.decompressobj(), bytearray()
    for block in blocks:
        while block:
            try:
                rest += unpacking.decompress(block, _BLOCK)
            except zlib.error:
                raise damaged(file) from None
            block = unpacking.unconsumed_tail
            *lines, last = rest.split(b"\n")
            if len(last) > LONGEST_LINE:
                raise damaged(file)
            yield from (bytes(line) + b"\n" for line in lines)
            rest = last
    if rest or not unpacking.eof:
        raise damaged(file)


def read_objects(folder: Folder, manifest: Manifest) -> Iterator[StoredObject]:
    """Yield the objects of a backup. Raises BackupDamagedError, also for a key that no object can have."""
    for value in read_list(folder, manifest.name, OBJECTS, manifest.objects):
        try:
            item = StoredObject(**value)
            checked_key(item.key)
            valid = isinstance(item.job_id, str) and item.size >= 0
        except (TypeError, ValueError, AttributeError):
            valid = False
        if not valid:
            raise damaged(OBJECTS)
        yield item


def write_manifest(folder: Folder, path: Path, manifest: Manifest) -> None:
    with folder.sealer(path, label(manifest.name, MANIFEST)) as sealer:
        sealer.write(manifest.model_dump_json().encode())


def read_manifest(folder: Folder, backup: str) -> Manifest:
    """Return the manifest of a finished backup. Raises BackupDamagedError, BackupIncompleteError."""
    data = folder.read_small(folder.backup_path(backup) / MANIFEST, label(backup, MANIFEST), _MANIFEST_BYTES)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError:
        raise damaged(MANIFEST) from None
    if manifest.name != backup:
        raise damaged(MANIFEST)
    return manifest
