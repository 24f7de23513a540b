"""Byte ranges and conditions of HTTP requests (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import re
from email.utils import format_datetime

from starlette.datastructures import Headers

from core.errors_media import RangeNotSatisfiableError
from internal.services.media import Medium

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def requested_range(headers: Headers, medium: Medium) -> tuple[int, int] | None:
    """Return the first and the last byte of the range to send, or None for the whole recording.

    A range that is malformed, one of several, or conditional on another version is ignored, as the RFC permits.
    Raises RangeNotSatisfiableError.
    """
    size = medium.info.size
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    condition = headers.get("if-range", medium.etag)
    if match is None or not (match[1] or match[2]) or condition not in (medium.etag, last_modified(medium)):
        return None
    if not match[1]:
        first, last = max(size - int(match[2]), 0), size - 1
    else:
        first, last = int(match[1]), min(int(match[2]), size - 1) if match[2] else size - 1
        if match[2] and int(match[2]) < first:
            return None
    if first >= size or last < first:
        raise RangeNotSatisfiableError(size=size)
    return first, last


def is_unchanged(headers: Headers, medium: Medium) -> bool:
    """Return True if the client has this version of the recording."""
    tags = headers.get("if-none-match")
    if tags is None:
        return headers.get("if-modified-since") == last_modified(medium)
    return tags.strip() == "*" or medium.etag in (tag.strip().removeprefix("W/") for tag in tags.split(","))


def last_modified(medium: Medium) -> str:
    return format_datetime(medium.info.last_modified.replace(microsecond=0), usegmt=True)
