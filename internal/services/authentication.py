"""Authentication by API key, `stt_<id>_<secret>`. The id and a keyed hash of the secret are stored."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from core.config import API_KEY, Settings
from core.database import Database
from core.errors import DatabaseUnavailable, UnauthorizedError
from core.secret import Secret
from internal.services.limiting import Limiter
from internal.services.request_origin import RequestOrigin
from repositories import api_keys

LOCAL_OWNER = "local"
"""Owner of jobs submitted without a key, and of the key in API_KEY."""
PURPOSE = "api key"
NO_HASH = "0" * 64
PUBLIC_REQUEST_TIMEOUT = 1.0
"""Seconds that a request to a public route waits for the database."""
NO_KEYS_TTL = 5.0
"""Seconds for which the absence of keys is cached; their existence is cached forever."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. author: name of the key, its id if it has none; the owner without a key."""

    owner: str
    author: str


class Authenticator:
    """Determines the owner of a request. One per API process."""

    def __init__(self, settings: Settings, database: Database, secret: Secret, limiter: Limiter) -> None:
        self._settings, self._database, self._secret, self._limiter = settings, database, secret, limiter
        self._has_keys = False
        self._checked_at = float("-inf")

    async def authenticate(self, key: str | None, origin: RequestOrigin) -> Caller:
        """Return the request's caller, and count the request unless it comes from this machine without a key.

        Raises UnauthorizedError, with the same text for all causes; LocalOnlyError, CrossSiteError, UntrustedHostError;
        RateLimitedError; DatabaseUnavailable.
        """
        settings = self._settings
        origin.require_trusted_host(() if self._local_only else settings.trusted_hosts)
        if await self._keys_exist():
            caller = await self._caller_of(key)
            await self._limiter.count_request(caller.owner)
            return caller
        if not settings.loopback and not settings.allow_anonymous:
            raise UnauthorizedError
        self._check_keyless(origin)
        if not settings.loopback or origin.reason_not_local(settings.trusted_hosts):
            await self._limiter.count_request(LOCAL_OWNER)
        return Caller(LOCAL_OWNER, LOCAL_OWNER)

    async def check_public(self, origin: RequestOrigin) -> None:
        """Check a request to a public route. Raises LocalOnlyError, CrossSiteError, UntrustedHostError.

        During an outage of the database, the last known answer to whether keys exist is used.
        """
        settings = self._settings
        origin.require_trusted_host(() if self._local_only else settings.trusted_hosts)
        if self._local_only:
            with contextlib.suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(PUBLIC_REQUEST_TIMEOUT):
                    await self._keys_exist()
        if self._local_only:
            self._check_keyless(origin)

    def is_admin(self, owner: str) -> bool:
        """Return True for the operator: this machine without a key, or a key of the local owner, as in API_KEY.

        With ALLOW_ANONYMOUS and no keys, nobody is known to be the operator.
        """
        return owner == LOCAL_OWNER and (self._has_keys or not self._settings.allow_anonymous)

    @property
    def _local_only(self) -> bool:
        """True if only this machine is served, according to the settings and the cached existence of keys."""
        settings = self._settings
        return settings.loopback and not (settings.allow_anonymous or settings.api_key or self._has_keys)

    def _check_keyless(self, origin: RequestOrigin) -> None:
        """Check the origin of a request without a key: nothing else keeps out web pages and the clients of a proxy."""
        settings = self._settings
        if not settings.allow_anonymous:
            origin.require_local(settings.trusted_hosts)
        # without keys, `*` is refused at startup, and matches no origin here
        origin.require_same_site(settings.cors_origins)

    async def _caller_of(self, key: str | None) -> Caller:
        match = API_KEY.fullmatch(key or "")
        if match is None:
            raise UnauthorizedError
        key_id, secret = match[1], match[2]
        async with self._database.read() as session:
            row = await api_keys.get_valid(session, key_id)
        # verified for an unknown id too, which then takes as long as a wrong secret
        matches = self._secret.verify(PURPOSE, secret, row.secret_hash if row else NO_HASH)
        if row is None or not matches:
            raise UnauthorizedError
        if row.last_used_at is None or time.time() - row.last_used_at.timestamp() > api_keys.USED_EVERY:
            async with self._database.write() as session:
                await api_keys.record_use(session, key_id)
        return Caller(row.owner, row.name or key_id)

    async def _keys_exist(self) -> bool:
        if not self._has_keys and time.monotonic() - self._checked_at > NO_KEYS_TTL:
            async with self._database.read() as session:
                self._has_keys = await api_keys.any_exists(session)
            self._checked_at = time.monotonic()
        return self._has_keys
