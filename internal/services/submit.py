"""Submit a recording: its bytes to storage as they arrive, then one transaction, then one wake-up."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import PurePosixPath

import structlog

from core.domain import keys
from core.domain.job import AUTO, Priority
from core.domain.models import DEMO, default_model, resolve
from core.errors import (
    DatabaseUnavailable,
    EmptyFileError,
    FileTooLargeError,
    IdempotencyMismatchError,
    InfrastructureError,
    InvalidFieldError,
    UnknownModelError,
    UnsupportedFormatError,
    UnsupportedLanguageError,
)
from core.storage.port import Upload
from internal.bootstrap import Parts
from internal.services import publishing
from repositories import idempotency, intents, jobs, workers
from repositories.claims import Released
from repositories.idempotency import Remembered
from repositories.models import Job

log = structlog.get_logger(__name__)
ACCEPTED = (
    *(".mp3", ".wav", ".m4a", ".mp4", ".aac", ".ogg", ".flac", ".wma"),
    *(".webm", ".mkv", ".avi", ".mov", ".opus", ".aiff", ".amr"),
)
MAX_NAME = 255
NO_WORKER = "No worker is running; the job waits until one starts."


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the sender asked for, checked. model: a full name, or None where no worker lives to know it."""

    language: str
    model: str | None
    priority: Priority
    warning: str | None = None


class Intake:
    """One upload on its way in; a FileSink. `discard` leaves nothing behind."""

    def __init__(self, parts: Parts, *, fingerprint: bool = False) -> None:
        """fingerprint: take the file's SHA-256 on its way, about a second of CPU time per GB."""
        self.parts = parts
        self.fingerprint = fingerprint
        self.job_id = str(uuid.uuid4())
        self.filename = ""
        self.key = ""
        self.size = 0
        self.digest = hashlib.sha256()
        self._upload: Upload | None = None

    async def begin(self, filename: str) -> None:
        """Raises UnsupportedFormatError; TooManyUploads, StorageUnavailable, DatabaseUnavailable."""
        self.filename = display_name(filename)
        if PurePosixPath(self.filename.lower()).suffix not in ACCEPTED:
            raise UnsupportedFormatError(
                f"The format of {self.filename!r} is not supported. Try {', '.join(ACCEPTED)}."
            )
        self.key = keys.upload_key(self.job_id, self.filename)
        async with self.parts.database.write() as session:
            await intents.note(session, self.key, self.job_id)
        self._upload = await self.parts.storage.open_upload(self.key)

    async def write(self, data: bytes) -> None:
        assert self._upload is not None
        self.size += len(data)
        if self.size > self.parts.settings.max_upload_bytes:
            raise FileTooLargeError(too_large(self.parts))
        if self.fingerprint:
            self.digest.update(data)
        await self._upload.write(data)

    async def finish(self) -> None:
        """The object stands in storage after this. Raises EmptyFileError."""
        assert self._upload is not None
        if self.size == 0:
            raise EmptyFileError
        await self._upload.commit()

    def keep(self) -> None:
        """From here on `discard` does nothing."""
        self.key, self._upload = "", None

    async def discard(self) -> None:
        """Remove what has arrived. Where a part is down the intent stays, and the scheduler collects later."""
        try:
            if self._upload is not None:
                await self._upload.abort()
                # by the exact key: S3 servers list unfinished multipart uploads that way only
                await self.parts.storage.delete_prefix(self.key)
            if self.key:
                async with self.parts.database.write() as session:
                    await intents.drop(session, self.key)
        except InfrastructureError as error:
            log.warning("upload left to the scheduler to collect", action="discard_delayed", code=error.code)


def too_large(parts: Parts) -> str:
    return f"The file is larger than {parts.settings.max_upload_size_mb} MB. Use a smaller or more compressed one."


def display_name(filename: str) -> str:
    """The last part of the name without control characters, at most 255 characters, its ending kept."""
    last = filename.replace("\\", "/").split("/")[-1]
    return "".join(letter for letter in last if letter.isprintable())[-MAX_NAME:]


async def check(parts: Parts, fields: dict[str, str]) -> Wishes:
    """Raises UnsupportedLanguageError, InvalidFieldError, UnknownModelError; DatabaseUnavailable."""
    settings = parts.settings
    language = fields.get("language") or settings.default_language
    allowed = (*settings.languages, AUTO)
    if language not in allowed:
        raise UnsupportedLanguageError(f"`language` {language[:20]!r} is not supported. Use {', '.join(allowed)}.")
    wanted = fields.get("priority") or Priority.NORMAL.value
    if wanted not in list(Priority):
        raise InvalidFieldError(f"`priority` {wanted[:20]!r} is unknown. Use {', '.join(Priority)}.")
    async with parts.database.read() as session:
        alive = await workers.alive(session)
    have = sorted({model for worker in alive for model in worker.models})
    asked = fields.get("model") or settings.default_model
    if not alive:
        return Wishes(language, asked, Priority(wanted), NO_WORKER)
    model = resolve(asked, language, have) if asked else default_model(language, have)
    if model is None:
        raise UnknownModelError(f"No worker has the model {str(asked)[:50]!r}. There are: {', '.join(have) or 'none'}.")
    if asked is None and model.startswith(DEMO):
        log.warning("the demo model transcribes nothing but its own sentences", action="demo_model", model=model)
    return Wishes(language, model, Priority(wanted))


def request_of(key: str, fields: dict[str, str], intake: Intake) -> Remembered:
    """What a repeated request is recognised by. Raises InvalidFieldError for a key that is none."""
    if not 1 <= len(key) <= MAX_NAME or not key.isprintable():
        raise InvalidFieldError(f"`Idempotency-Key` has 1 to {MAX_NAME} printable characters.")
    known = {name: fields.get(name, "") for name in ("language", "model", "priority")}
    canonical = json.dumps({**known, "file": intake.digest.hexdigest(), "name": intake.filename}, sort_keys=True)
    return Remembered(key, hashlib.sha256(canonical.encode()).hexdigest())


async def answered_before(parts: Parts, owner: str, request: Remembered) -> Job | None:
    """The job that the same request made; None: it is new. Raises IdempotencyMismatchError for another request."""
    async with parts.database.read() as session:
        found = await idempotency.find(session, owner, request.key)
        if found is None:
            return None
        if found.request_hash != request.request_hash:
            raise IdempotencyMismatchError
        return await jobs.get(session, found.job_id, owner)


async def accept(parts: Parts, intake: Intake, owner: str, wishes: Wishes, request: Remembered | None = None) -> Job:
    """Commit the job, then publish its Prepare. Raises IntegrityError when the key of `request` was used meanwhile.

    A database that goes away here may have committed: then the object must stay, so it is not discarded; if nothing was
    committed, the intent lets the scheduler collect it.
    """
    new = jobs.NewJob(
        job_id=intake.job_id,
        owner=owner,
        language=wishes.language,
        model=wishes.model,
        priority=wishes.priority,
        options={},
        original_filename=intake.filename,
        audio_key=intake.key,
        file_size=intake.size,
    )
    try:
        async with parts.database.write() as session:
            job = await jobs.create(session, new)
            if request is not None:
                await idempotency.remember(session, owner, request, job.job_id, {"job_id": job.job_id})
    except DatabaseUnavailable:
        intake.keep()
        raise
    await parts.publisher.publish([publishing.prepare(job, Released(job.job_id, None, 0))])
    log.info("job accepted", action="job_accepted", job_id=job.job_id, bytes=intake.size, model=job.model)
    return job
