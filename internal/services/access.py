"""Who calls: API keys `stt_<id>_<secret>`, kept as id and keyed hash, shown once."""

from __future__ import annotations

import contextlib
import secrets
import time

from sqlalchemy.exc import IntegrityError

from core.config import API_KEY
from core.errors import SettingsError, UnauthorizedError
from internal.bootstrap import Parts
from repositories import api_keys

LOCAL = "local"
"""The owner of jobs that were submitted without a key, and of the key that API_KEY names."""
PURPOSE = "api key"
RECHECK = 5.0
"""Seconds for which "there are no keys" is believed."""


class Access:
    """One per API process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._has_keys = False
        self._asked = float("-inf")

    async def owner(self, key: str | None) -> str:
        """Whose request this is; it is counted, unless it comes without a key from this very machine.

        Raises UnauthorizedError, with one text for all causes; RateLimitedError; DatabaseUnavailable.
        """
        settings = self._parts.settings
        keyed = await self._keys_exist()
        if not keyed and not settings.loopback and not settings.allow_anonymous:
            raise UnauthorizedError
        owner = await self._owner_of(key) if keyed else LOCAL
        if keyed or not settings.loopback:
            await self._parts.limiter.request(owner)
        return owner

    async def _owner_of(self, key: str | None) -> str:
        form = API_KEY.fullmatch(key or "")
        if form is None:
            raise UnauthorizedError
        key_id, secret = form[1], form[2]
        async with self._parts.database.read() as session:
            found = await api_keys.valid(session, key_id)
        if found is None or not self._parts.secret.verify(PURPOSE, secret, found.secret_hash):
            raise UnauthorizedError
        if found.last_used_at is None or time.time() - found.last_used_at.timestamp() > api_keys.USED_EVERY:
            async with self._parts.database.write() as session:
                await api_keys.note_use(session, key_id)
        return found.owner

    async def _keys_exist(self) -> bool:
        if not self._has_keys and time.monotonic() - self._asked > RECHECK:
            async with self._parts.database.read() as session:
                self._has_keys = await api_keys.any_exists(session)
            self._asked = time.monotonic()
        return self._has_keys


async def create(parts: Parts, owner: str | None, name: str | None, lifetime: float | None) -> tuple[str, str]:
    """A new key and its owner (by default its own id). lifetime in seconds."""
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    owner = owner or key_id
    async with parts.database.write() as session:
        await api_keys.create(session, key_id, parts.secret.sign(PURPOSE, secret), owner, name, lifetime)
    return f"stt_{key_id}_{secret}", owner


async def ensure_first(parts: Parts) -> None:
    """Make the key that API_KEY names, once. Raises SettingsError where its id has another secret."""
    form = API_KEY.fullmatch(parts.settings.api_key)
    if form is None:
        return
    hashed = parts.secret.sign(PURPOSE, form[2])
    with contextlib.suppress(IntegrityError):
        async with parts.database.write() as session:
            await api_keys.create(session, form[1], hashed, LOCAL, "API_KEY", None)
        return
    async with parts.database.read() as session:
        found = {key.key_id: key for key in await api_keys.everything(session)}.get(form[1])
    if found is None or found.secret_hash != hashed:
        raise SettingsError("API_KEY: its id belongs to a key with another secret; SECRET_KEY may have changed")
