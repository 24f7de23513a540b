"""Passwords that keep nobody out."""

from __future__ import annotations

from urllib.parse import SplitResult, parse_qs, unquote

MIN_SECRET = 32
"""Characters that SECRET_KEY has at least."""
_LISTED = """
    admin administrator changeme change-me default demo example guest letmein minio minio123 minioadmin pass passw0rd
    password password1 password123 postgres postgresql qwerty rabbit rabbitmq root rootroot s3cr3t secret stt test
    user welcome 1234 12345 123456 12345678 123456789 1234567890
"""
WELL_KNOWN = frozenset(_LISTED.split())
"""Passwords that the servers come with, that their guides show, and that are tried first."""


def is_well_known(user: str, password: str) -> bool:
    """Return True for a password that is on every list or equals the user name; both may be percent-encoded."""
    plain = unquote(password).lower()
    return plain in WELL_KNOWN or plain == unquote(user).lower()


def passwords(url: SplitResult) -> list[str]:
    """The passwords of a database address, which may also stand in its query."""
    return [word for word in (url.password, *parse_qs(url.query).get("password", [])) if word]
