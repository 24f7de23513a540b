"""Names of recordings."""

from __future__ import annotations

from pathlib import PurePath

EXTENSIONS = (
    *(".mp3", ".wav", ".m4a", ".mp4", ".aac", ".ogg", ".flac", ".wma"),
    *(".webm", ".mkv", ".avi", ".mov", ".opus", ".aiff", ".amr"),
)
"""Accepted extensions, in lower case. The content is checked when the job runs."""


def is_recording(name: str) -> bool:
    """Return True if the file name has an accepted extension, in any case."""
    return PurePath(name).suffix.lower() in EXTENSIONS
