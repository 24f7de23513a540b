"""Objects that an unfinished backup has copied already, so that the next run continues after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields

from Crypto.Cipher import AES

from core.errors_backup import BackupIncompleteError
from internal.backup.folder import Folder, folder_errors, open_regular
from internal.backup.manifest import StoredObject

NONCE_BYTES, TAG_BYTES = 12, 16
JOURNAL = "journal"
_FIELDS = {field.name for field in fields(StoredObject)}


class Journal:
    """A file of sealed lines. Lines after one that does not open, which an interruption cut off, are dropped."""

    def __init__(self, folder: Folder) -> None:
        self._folder, self._path = folder, folder.unfinished / JOURNAL
        # random nonces: a key of its own keeps their number far below the limit of 2^32
        self._key = folder.keys.of_file(JOURNAL, bytes(32))

    def read(self) -> Iterator[StoredObject]:
        """Yield the objects that were noted, then cut off what cannot be read. Raises BackupFolderError."""
        try:
            file = open_regular(self._path, JOURNAL)
        except BackupIncompleteError:
            return
        end = 0
        with file:
            for line in file:
                item = self._opened(line)
                if item is None:
                    break
                end += len(line)
                yield item
        with folder_errors(self._path):
            os.truncate(self._path, end)

    def add(self, item: StoredObject) -> None:
        """Note an object that was copied. Raises BackupDiskFullError."""
        nonce = os.urandom(NONCE_BYTES)
        sealed, tag = AES.new(self._key, AES.MODE_GCM, nonce=nonce).encrypt_and_digest(
            json.dumps(item.to_json()).encode()
        )
        with folder_errors(self._path):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            with os.fdopen(os.open(self._path, flags, 0o600), "ab") as file:
                file.write((nonce + tag + sealed).hex().encode() + b"\n")

    def _opened(self, line: bytes) -> StoredObject | None:
        try:
            data = bytes.fromhex(line.decode("ascii").strip())
            nonce, tag, sealed = data[:NONCE_BYTES], data[NONCE_BYTES:28], data[28:]
            values = json.loads(AES.new(self._key, AES.MODE_GCM, nonce=nonce).decrypt_and_verify(sealed, tag))
        except ValueError:
            return None
        return StoredObject(**values) if line.endswith(b"\n") and set(values) == _FIELDS else None
