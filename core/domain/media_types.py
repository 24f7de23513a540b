"""Media types of recordings. No recording is ever sent with a type that a browser runs or renders as a page."""

from __future__ import annotations

from pathlib import PurePath

UNKNOWN = "application/octet-stream"
SNIFFED_BYTES = 16
"""Bytes at the start of a recording that `type_of_content` reads."""
BY_SUFFIX = {
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".aac": "audio/aac",
    ".ogg": "audio/ogg",
    ".flac": "audio/flac",
    ".wma": "audio/x-ms-wma",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".avi": "video/x-msvideo",
    ".mov": "video/quicktime",
    ".opus": "audio/ogg",
    ".aiff": "audio/aiff",
    ".amr": "audio/amr",
}
"""Types by extension; those of `recordings.EXTENSIONS`."""
_SIGNATURES = (
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf1", "audio/aac"),
    (8, b"WAVE", "audio/wav"),
    (8, b"AVI ", "video/x-msvideo"),
    (8, b"AIFF", "audio/aiff"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftypqt", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"OggS", "audio/ogg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
    (0, b"#!AMR", "audio/amr"),
)
MEDIA_TYPES = tuple(sorted({*BY_SUFFIX.values(), UNKNOWN}))


def type_of_name(name: str) -> str | None:
    """Return the type of a recording by its name's extension, or None."""
    return BY_SUFFIX.get(PurePath(name).suffix.lower())


def type_of_content(start: bytes) -> str:
    """Return the type of a recording by its first SNIFFED_BYTES, for a job by URL whose name has no extension."""
    return next((kind for at, mark, kind in _SIGNATURES if start[at:].startswith(mark)), UNKNOWN)
