"""Management of API keys."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from core.config import API_KEY, Settings
from core.database import Database
from core.errors import SettingsError
from core.secret import Secret
from internal.services.authentication import LOCAL_OWNER, PURPOSE
from repositories import api_keys
from repositories.models import ApiKey


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """Creation, listing and revocation of API keys."""

    settings: Settings
    database: Database
    secret: Secret

    async def create(self, owner: str | None, name: str | None, lifetime: float | None) -> tuple[str, str]:
        """Create a key; return it and its owner, by default the key's id. lifetime: seconds, None for unlimited."""
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        owner = owner or key_id
        async with self.database.write() as session:
            await api_keys.create(session, key_id, self.secret.sign(PURPOSE, secret), owner, name, lifetime)
        return f"stt_{key_id}_{secret}", owner

    async def list_all(self) -> list[ApiKey]:
        async with self.database.read() as session:
            return await api_keys.list_all(session)

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key; return False if it is unknown or already revoked."""
        async with self.database.write() as session:
            return await api_keys.revoke(session, key_id)

    def webhook_secret(self, owner: str) -> str:
        """Return the secret that verifies the owner's webhooks."""
        return self.secret.webhook_secret(owner)

    async def ensure_configured(self) -> None:
        """Create the key in API_KEY unless it exists.

        Raises SettingsError if its id exists with another secret, or if CORS_ORIGINS would let any web page call a
        service without keys; DatabaseUnavailable.
        """
        if API_KEY.fullmatch(self.settings.api_key):
            await self._create_configured(self.settings.api_key)
        elif "*" in self.settings.cors_origins:
            async with self.database.read() as session:
                if not await api_keys.any_exists(session):
                    raise SettingsError(
                        "CORS_ORIGINS: * lets every web page call a service without keys; name the origins, "
                        "or make a key with `stt keys create` or API_KEY"
                    )

    async def _create_configured(self, key: str) -> None:
        _, key_id, secret = key.split("_", 2)
        secret_hash = self.secret.sign(PURPOSE, secret)
        async with self.database.write() as session:
            stored = await api_keys.ensure(
                session, key_id, secret_hash, LOCAL_OWNER, "API_KEY", sqlite=self.database.sqlite
            )
        if stored != secret_hash:
            raise SettingsError("API_KEY: its id belongs to a key with another secret; SECRET_KEY may have changed")
