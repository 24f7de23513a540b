"""Well-known default passwords."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qs, unquote

MIN_SECRET = 32
"""Minimum length of SECRET_KEY in characters."""
_DEFAULTS = """
    admin administrator changeme change-me default demo example guest letmein minio minio123 minioadmin pass passw0rd
    password password1 password123 postgres postgresql qwerty rabbit rabbitmq root rootroot s3cr3t secret stt test
    user welcome 1234 12345 123456 12345678 123456789 1234567890
"""
WELL_KNOWN = frozenset(_DEFAULTS.split())
"""Default passwords of the servers, and the most common guesses."""


def is_well_known(user: str, password: str) -> bool:
    """Return True if the password is well known or equals the user name. Both may be percent-encoded."""
    plain = unquote(password).lower()
    return plain in WELL_KNOWN or plain == unquote(user).lower()


def passwords(url: SplitResult) -> list[str]:
    """Return the passwords in a database URL, from its user info and its query."""
    return [password for password in (url.password, *parse_qs(url.query).get("password", [])) if password]
