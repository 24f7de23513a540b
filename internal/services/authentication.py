"""Who calls: API keys `stt_<id>_<secret>`, kept as id and keyed hash, shown once."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time

from core.config import API_KEY
from core.errors import AlreadyExists, DatabaseUnavailable, SettingsError, UnauthorizedError
from internal.bootstrap import Application
from internal.services.callers import Caller
from repositories import api_keys

LOCAL = "local"
"""The owner of jobs that were submitted without a key, and of the key that API_KEY names."""
PURPOSE = "api key"
NO_HASH = "0" * 64
VISIT_SECONDS = 1.0
"""How long a request that needs no owner waits for the database."""
RECHECK = 5.0
"""Seconds for which "there are no keys" is believed."""


class Authenticator:
    """One per API process."""

    def __init__(self, parts: Application) -> None:
        self._parts = parts
        self._has_keys = False
        self._asked = float("-inf")

    async def owner(self, key: str | None, caller: Caller) -> str:
        """The owner that this request acts for; it is counted, unless it comes without a key from this very machine.

        Raises UnauthorizedError, with one text for all causes; LocalOnlyError, CrossSiteError, UntrustedHostError;
        RateLimitedError; DatabaseUnavailable.
        """
        settings = self._parts.settings
        caller.require_trusted_host(() if self._local_only else settings.trusted_hosts)
        if await self._keys_exist():
            owner = await self._owner_of(key)
            await self._parts.limiter.request(owner)
            return owner
        if not settings.loopback and not settings.allow_anonymous:
            raise UnauthorizedError
        self._check_keyless(caller)
        if not settings.loopback or caller.why_not_local(settings.trusted_hosts):
            await self._parts.limiter.request(LOCAL)
        return LOCAL

    async def visit(self, caller: Caller) -> None:
        """A request that needs no owner. Raises LocalOnlyError, CrossSiteError, UntrustedHostError.

        It has to be answered while the database is away, too: what was last known of keys counts then.
        """
        settings = self._parts.settings
        caller.require_trusted_host(() if self._local_only else settings.trusted_hosts)
        if self._local_only:
            with contextlib.suppress(DatabaseUnavailable, TimeoutError):
                async with asyncio.timeout(VISIT_SECONDS):
                    await self._keys_exist()
        if self._local_only:
            self._check_keyless(caller)

    @property
    def _local_only(self) -> bool:
        """Whether only this machine is served, as far as it is known."""
        settings = self._parts.settings
        return settings.loopback and not (settings.allow_anonymous or settings.api_key or self._has_keys)

    def _check_keyless(self, caller: Caller) -> None:
        """Without keys there is nothing else that a web page or a proxy's clients would need to have."""
        settings = self._parts.settings
        if not settings.allow_anonymous:
            caller.require_local(settings.trusted_hosts)
        # `*` is refused at start where there are no keys; it allows nothing here either
        caller.require_same_site(settings.cors_origins)

    async def _owner_of(self, key: str | None) -> str:
        form = API_KEY.fullmatch(key or "")
        if form is None:
            raise UnauthorizedError
        key_id, secret = form[1], form[2]
        async with self._parts.database.read() as session:
            found = await api_keys.get_valid(session, key_id)
        # an unknown id takes as long as a wrong secret
        right = self._parts.secret.verify(PURPOSE, secret, found.secret_hash if found else NO_HASH)
        if found is None or not right:
            raise UnauthorizedError
        if found.last_used_at is None or time.time() - found.last_used_at.timestamp() > api_keys.USED_EVERY:
            async with self._parts.database.write() as session:
                await api_keys.record_use(session, key_id)
        return found.owner

    async def _keys_exist(self) -> bool:
        if not self._has_keys and time.monotonic() - self._asked > RECHECK:
            async with self._parts.database.read() as session:
                self._has_keys = await api_keys.any_exists(session)
            self._asked = time.monotonic()
        return self._has_keys


async def create(parts: Application, owner: str | None, name: str | None, lifetime: float | None) -> tuple[str, str]:
    """A new key and its owner (by default its own id). lifetime in seconds."""
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    owner = owner or key_id
    async with parts.database.write() as session:
        await api_keys.create(session, key_id, parts.secret.sign(PURPOSE, secret), owner, name, lifetime)
    return f"stt_{key_id}_{secret}", owner


async def ensure_first(parts: Application) -> None:
    """Make the key that API_KEY names, once. Raises SettingsError where its id has another secret, and where any web
    page might call a service without keys."""
    if API_KEY.fullmatch(parts.settings.api_key):
        await _ensure(parts, parts.settings.api_key)
    elif "*" in parts.settings.cors_origins:
        async with parts.database.read() as session:
            if not await api_keys.any_exists(session):
                raise SettingsError(
                    "CORS_ORIGINS: * lets every web page call a service that asks for no key; name the origins, "
                    "or make a key with `stt keys create` or API_KEY"
                )


async def _ensure(parts: Application, key: str) -> None:
    _, key_id, secret = key.split("_", 2)
    hashed = parts.secret.sign(PURPOSE, secret)
    with contextlib.suppress(AlreadyExists):
        async with parts.database.write() as session:
            await api_keys.create(session, key_id, hashed, LOCAL, "API_KEY", None)
        return
    async with parts.database.read() as session:
        found = {key.key_id: key for key in await api_keys.list_all(session)}.get(key_id)
    if found is None or found.secret_hash != hashed:
        raise SettingsError("API_KEY: its id belongs to a key with another secret; SECRET_KEY may have changed")
