"""Idempotent requests: a repeated request with the same Idempotency-Key returns the same job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core.database import Database
from core.errors import AlreadyExists, IdempotencyMismatchError, InvalidFieldError
from repositories import idempotency, jobs
from repositories.idempotency import IdempotentRequest
from repositories.models import Job

MAX_KEY = 255
"""Maximum characters of an Idempotency-Key."""


def idempotent_request(key: str | None, fields: Mapping[str, Any], file_digest: str = "") -> IdempotentRequest | None:
    """Return the key with a hash of the request; None without a key. Raises InvalidFieldError.

    file_digest: SHA-256 (hex) of the recording if the request contains one.
    """
    if key is None:
        return None
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise InvalidFieldError(
            "Idempotency-Key", "`Idempotency-Key` must have 1 to {limit} printable characters.", limit=MAX_KEY
        )
    return IdempotentRequest(key, request_hash(fields, file_digest))


def request_hash(fields: Mapping[str, Any], file_digest: str) -> str:
    canonical = json.dumps([dict(fields), file_digest], sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode(errors="replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class IdempotentRequests:
    """Lookup of earlier requests by their idempotency keys."""

    database: Database

    async def find_job_id(self, owner: str, request: IdempotentRequest) -> str | None:
        """Return the job_id of the earlier request with this key; None if there is none.

        Raises IdempotencyMismatchError if the requests differ.
        """
        async with self.database.read() as session:
            earlier = await idempotency.find(session, owner, request.key)
        if earlier is None:
            return None
        if earlier.request_hash != request.request_hash:
            raise IdempotencyMismatchError
        return earlier.job_id

    async def find_job(self, owner: str, request: IdempotentRequest) -> Job | None:
        """Return the job of the earlier request. If the job was deleted, free its key and return None."""
        job_id = await self.find_job_id(owner, request)
        if job_id is None:
            return None
        async with self.database.read() as session:
            job = await jobs.get(session, job_id, owner)
        if job is None:
            await self.forget(owner, request)
        return job

    async def forget(self, owner: str, request: IdempotentRequest) -> None:
        """Delete the record of a request, so that its key can be used again."""
        async with self.database.write() as session:
            await idempotency.delete(session, owner, request.key)

    async def run_once(
        self, owner: str, request: IdempotentRequest | None, create: Callable[[], Awaitable[Job]]
    ) -> tuple[Job, bool]:
        """Return the job of the same earlier request, or else that of `create`, and whether it is new.

        `create` has to raise AlreadyExists if a concurrent request has used the key first.
        """
        if request is None:
            return await create(), True
        earlier = await self.find_job(owner, request)
        if earlier is not None:
            return earlier, False
        try:
            return await create(), True
        except AlreadyExists:
            earlier = await self.find_job(owner, request)
            if earlier is None:
                raise
            return earlier, False
