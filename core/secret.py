"""The service's own secret: what API keys are hashed with and webhooks and upload links are signed with."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from functools import cached_property
from pathlib import Path

import structlog

from core.errors import SettingsError

log = structlog.get_logger(__name__)
FILE = "secret.key"


class Secret:
    """SECRET_KEY, or else one made in `data_dir` when it is first needed, readable by its owner alone.

    It is never shown; everything else is derived from it.
    """

    def __init__(self, configured: str, data_dir: Path) -> None:
        """Raises SettingsError where others can read the key that was made before."""
        self._configured, self._file = configured, data_dir / FILE
        if not configured and self._file.exists():
            _restrict_permissions(self._file)

    @cached_property
    def _value(self) -> bytes:
        return (self._configured or _load_or_create(self._file)).encode()

    def sign(self, purpose: str, text: str) -> str:
        """HMAC-SHA256 as 64 hexadecimal digits; a signature for one purpose is none for another."""
        return hmac.new(self._value, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()

    def verify(self, purpose: str, text: str, signature: str) -> bool:
        return hmac.compare_digest(self.sign(purpose, text).encode(), signature.encode())

    def webhook_secret(self, owner: str) -> str:
        """What this owner verifies his webhooks with, in the form of Standard Webhooks."""
        return "whsec_" + base64.b64encode(bytes.fromhex(self.sign("webhook", owner))).decode()


def _load_or_create(file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    # linked into place whole: another process that starts at once reads all of it or makes it itself
    draft = file.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    with contextlib.suppress(FileExistsError):
        if not file.exists():
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(secrets.token_hex(32))
            os.link(draft, file)
    draft.unlink(missing_ok=True)
    return file.read_text()


def _restrict_permissions(file: Path) -> None:
    """Raises SettingsError for a key that others can read, and cannot be kept from reading."""
    mode = file.stat().st_mode & 0o777
    if not mode & 0o077:
        return
    with contextlib.suppress(OSError):
        file.chmod(0o600)
    if file.stat().st_mode & 0o077:
        raise SettingsError(f"SECRET_KEY: other users can read {file} ({mode:o}): chmod 600 it, or set SECRET_KEY")
    log.warning(
        "others could read the secret key; make a new one if they may have", action="key_was_open", mode=f"{mode:o}"
    )
