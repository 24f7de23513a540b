"""The secret of the service, which hashes API keys and signs webhooks and upload links."""

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
    """SECRET_KEY, or a generated key in `data_dir` that only its owner can read.

    All other secrets are derived from it.
    """

    def __init__(self, configured: str, data_dir: Path) -> None:
        """configured: the value of SECRET_KEY. Raises SettingsError if a key file stays readable by other users."""
        self._configured, self._file = configured, data_dir / FILE
        if not configured and self._file.exists():
            _restrict_permissions(self._file)

    @cached_property
    def _value(self) -> bytes:
        return (self._configured or _load_or_create(self._file)).encode()

    @property
    def generated(self) -> str | None:
        """The generated key; None if SECRET_KEY is set, or none was generated yet."""
        return None if self._configured or not self._file.exists() else self._file.read_text()

    def adopt(self, generated: str) -> None:
        """Use a key that was generated elsewhere from now on, unless SECRET_KEY is set. Raises OSError."""
        if self._configured:
            return
        draft = _draft(self._file, generated)
        draft.replace(self._file)
        self.__dict__.pop("_value", None)

    def sign(self, purpose: str, text: str) -> str:
        """Return the HMAC-SHA256 as 64 hexadecimal digits. A signature is valid for one purpose only."""
        return hmac.new(self._value, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()

    def verify(self, purpose: str, text: str, signature: str) -> bool:
        """Return True if `sign` returned this signature. Takes constant time."""
        return hmac.compare_digest(self.sign(purpose, text).encode(), signature.encode())

    def webhook_secret(self, owner: str) -> str:
        """Return the key that verifies this owner's webhooks, in the format of Standard Webhooks."""
        return "whsec_" + base64.b64encode(bytes.fromhex(self.sign("webhook", owner))).decode()


def _load_or_create(file: Path) -> str:
    if not file.exists():
        # linked into place, so that a process that starts at the same time never reads an incomplete key
        draft = _draft(file, secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
        draft.unlink(missing_ok=True)
    return file.read_text()


def _draft(file: Path, text: str) -> Path:
    """Write a file beside `file` that only its owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    return draft


def _restrict_permissions(file: Path) -> None:
    """Make the key readable by its owner only. Raises SettingsError if that fails."""
    mode = file.stat().st_mode & 0o777
    if not mode & 0o077:
        return
    with contextlib.suppress(OSError):
        file.chmod(0o600)
    if file.stat().st_mode & 0o077:
        raise SettingsError(
            f"SECRET_KEY: {file} is readable by other users ({mode:o}): chmod 600 it, or set SECRET_KEY"
        )
    log.warning(
        "secret key was readable by other users; replace it if it leaked",
        action="key_was_open",
        mode=f"{mode:o}",
    )
