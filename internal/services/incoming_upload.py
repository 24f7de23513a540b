"""An upload that is being written to storage."""

from __future__ import annotations

import hashlib
import uuid

import structlog

from core.database import Database
from core.domain import keys
from core.domain.recordings import EXTENSIONS, is_recording
from core.errors import EmptyFileError, FileTooLargeError, InfrastructureError, UnsupportedFormatError
from core.storage.port import Storage, Upload
from repositories import intents

log = structlog.get_logger(__name__)
MAX_NAME = 255
"""Maximum characters of a file name."""


class IncomingUpload:
    """A file sink that writes to storage under the id of the future job.

    Before `hand_over`, `discard` removes the object. After it, a committed job may refer to the object, which is left
    to the job or the collection of expired intents. `take_back` undoes `hand_over` after a certain rollback.
    """

    def __init__(self, database: Database, storage: Storage, max_bytes: int, *, fingerprint: bool = False) -> None:
        """fingerprint: compute the file's SHA-256 while it arrives, about a second of CPU time per GB."""
        self._database, self._storage, self._max_bytes = database, storage, max_bytes
        self.fingerprint = fingerprint
        self.job_id = str(uuid.uuid4())
        self.filename = ""
        self.key = ""
        self.size = 0
        self.digest = hashlib.sha256()
        self._upload: Upload | None = None
        self._handed_over = False

    async def begin(self, filename: str) -> None:
        """Open the object. Raises UnsupportedFormatError; TooManyUploads, StorageUnavailable, DatabaseUnavailable."""
        self.filename = accepted_name(filename)
        self.key = keys.upload_key(self.job_id, self.filename)
        async with self._database.write() as session:
            await intents.create(session, self.key, self.job_id)
        self._upload = await self._storage.open_upload(self.key)

    async def write(self, data: bytes) -> None:
        """Append to the object. Raises FileTooLargeError; StorageUnavailable."""
        assert self._upload is not None
        self.size += len(data)
        if self.size > self._max_bytes:
            raise file_too_large(self._max_bytes)
        if self.fingerprint:
            self.digest.update(data)
        await self._upload.write(data)

    async def finish(self) -> None:
        """Complete the object in storage. Raises EmptyFileError; StorageUnavailable."""
        assert self._upload is not None
        if self.size == 0:
            raise EmptyFileError
        await self._upload.commit()

    def hand_over(self) -> None:
        """Leave the object to its job. Call before the creating transaction, whose outcome may remain unknown."""
        self._handed_over = True

    def take_back(self) -> None:
        """Undo `hand_over`. Call only if the transaction was certainly rolled back."""
        self._handed_over = False

    async def discard(self) -> None:
        """Remove the object and its intent. During an outage the intent stays and the scheduler collects the object."""
        if self._handed_over:
            return
        try:
            if self._upload is not None:
                await self._upload.abort()
                # with the exact key: S3 servers list unfinished multipart uploads only by it
                await self._storage.delete_prefix(self.key)
            if self.key:
                async with self._database.write() as session:
                    await intents.delete(session, self.key)
        except InfrastructureError as error:
            log.warning("upload left to the scheduler to collect", action="discard_delayed", code=error.code)


def file_too_large(max_bytes: int) -> FileTooLargeError:
    return FileTooLargeError(
        "The file is larger than {limit} MB. Use a smaller or more compressed one.", limit=max_bytes // 1024**2
    )


def accepted_name(filename: str) -> str:
    """Return the display name. Raises UnsupportedFormatError for an extension that is not accepted."""
    name = display_name(filename)
    if not is_recording(name):
        raise UnsupportedFormatError(
            "The format of {value} is not supported. Use {allowed}.",
            value=repr(name),
            allowed=", ".join(EXTENSIONS),
        )
    return name


def display_name(filename: str) -> str:
    """Return the last path segment without unprintable characters; a long name keeps its end, with the extension."""
    last_segment = filename.replace("\\", "/").split("/")[-1]
    return "".join(character for character in last_segment if character.isprintable())[-MAX_NAME:]
