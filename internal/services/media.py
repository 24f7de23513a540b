"""The recording of a job, for players: read in pieces, authorised by a key or by a short-lived token."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from core.database import Database
from core.domain import keys
from core.domain.media_types import SNIFFED_BYTES, type_of_content, type_of_name
from core.errors import ObjectNotFound, UnauthorizedError
from core.errors_media import MediaGoneError, MediaNotReadyError, PeaksMissingError
from core.secret import Secret
from core.storage.port import ObjectInfo, Storage
from internal.services.jobs import is_job_id, job_not_found
from internal.services.limiting import Limiter
from repositories import jobs
from repositories.models import Job

PURPOSE = "media token"
TOKEN_SECONDS = 3600
"""Seconds for which a token is valid. It stays valid if the key that requested it is revoked."""
TOKEN = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)
BLOCK = 256 * 1024
"""Bytes that are read from the storage at a time. Nothing is held open while a client does not read."""


@dataclass(frozen=True, slots=True)
class Medium:
    """A stored recording. name: the file name to show; content_type: never one that runs script."""

    info: ObjectInfo
    name: str
    content_type: str

    @property
    def etag(self) -> str:
        """The strong entity tag, with its quotes."""
        return f'"{hashlib.sha256(self.info.version.encode()).hexdigest()[:32]}"'


@dataclass(frozen=True, slots=True)
class MediaToken:
    """A token that authorises reading one job's recording until `expires_at`."""

    text: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Media:
    """Access to recordings."""

    database: Database
    storage: Storage
    secret: Secret
    limiter: Limiter

    def issue_token(self, job: Job) -> MediaToken:
        expires = int(time.time()) + TOKEN_SECONDS
        signature = self.secret.sign(PURPOSE, f"{job.job_id} {expires}")
        return MediaToken(f"{expires}.{signature}", datetime.fromtimestamp(expires, UTC))

    async def authorise(self, job_id: str, token: str) -> Job:
        """Return the job of a token, and count the request, apart from the owner's other ones.

        Raises UnauthorizedError, JobNotFoundError, RateLimitedError.
        """
        match = TOKEN.fullmatch(token)
        valid = match is not None and self.secret.verify(PURPOSE, f"{job_id} {match[1]}", match[2])
        if match is None or not valid or time.time() > int(match[1]):
            raise UnauthorizedError(
                "The media token is invalid or has expired. Request a new one with POST .../media-token."
            )
        job = None
        if is_job_id(job_id):
            async with self.database.read() as session:
                job = await jobs.get(session, job_id)
        if job is None:
            raise job_not_found(job_id)
        await self.limiter.count_request(f"media {job.owner}")
        return job

    async def find(self, job: Job) -> Medium:
        """Return the job's recording. Raises MediaNotReadyError, MediaGoneError, StorageUnavailable."""
        key = job.minio_audio_path
        if key is None:
            raise MediaNotReadyError
        info = await self.storage.stat(key)
        if info is None:
            raise MediaGoneError
        name = job.original_filename or "recording"
        kind = type_of_name(name)
        if kind is None:
            kind = type_of_content(await self.storage.get_bytes(key, 0, min(SNIFFED_BYTES, info.size)))
        return Medium(info, name, kind)

    async def peaks(self, job: Job) -> dict[str, Any]:
        """Return the stored peaks, see `worker/peaks.py`. Raises PeaksMissingError, StorageUnavailable."""
        try:
            data = await self.storage.get_bytes(keys.peaks_key(job.job_id))
            stored: dict[str, Any] = json.loads(data)
        except (ObjectNotFound, ValueError) as error:
            raise PeaksMissingError from error
        return stored

    async def read(self, medium: Medium, first: int, last: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `first` to `last`, both included.

        Raises ObjectNotFound, ShortRead, StorageUnavailable, after which the response breaks off.
        """
        for offset in range(first, last + 1, BLOCK):
            yield await self.storage.get_bytes(medium.info.key, offset, min(BLOCK, last + 1 - offset))
