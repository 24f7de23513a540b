"""Keys of objects in storage."""

from __future__ import annotations

import re
import unicodedata

MAX_NAME = 100
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def safe_name(filename: str) -> str:
    """Return a file name that is safe in an object key: ASCII letters, digits and `._-`, at most 100 characters.

    Folders are removed and the extension is kept. A name without any such characters becomes `audio`.
    """
    last = re.split(r"[/\\]", filename)[-1]
    plain = unicodedata.normalize("NFKD", last.replace("đ", "d").replace("Đ", "D"))
    ascii_only = plain.encode("ascii", "ignore").decode()
    name = _UNSAFE.sub("_", ascii_only).lstrip(".")
    return name[-MAX_NAME:].lstrip("._-") or "audio"


def upload_key(job_id: str, filename: str) -> str:
    return f"uploads/{job_id}/{safe_name(filename)}"


def incoming_key(job_id: str, filename: str) -> str:
    """Return the key that an upload link writes to. The job reads a copy, which no link can change."""
    return f"incoming/{job_id}/{safe_name(filename)}"


def pinned_key(job_id: str, attempt: str, filename: str) -> str:
    """Return the key of the copy made when the job of an upload link is started. attempt: distinguishes two starts."""
    return f"uploads/{job_id}/{attempt}/{safe_name(filename)}"


def working_key(job_id: str, claim: int, part: int = 0) -> str:
    """Return the key of working audio that one Prepare writes. claim: the number of its claim; part: of the recording.

    No key is the start of another one.
    """
    return f"work/{job_id}/{claim}-{part}.pcm" if part else f"work/{job_id}/{claim}.pcm"


def result_key(job_id: str, extension: str = "json") -> str:
    return f"results/{job_id}/transcription.{extension}"


RESULT_EXTENSIONS = ("json", "txt")
"""Formats in which a result is stored; the others are made from it."""


def peaks_key(job_id: str) -> str:
    return f"peaks/{job_id}/peaks.json"


def result_keys(job_id: str) -> list[str]:
    """Return the keys of all objects that a completed job leaves besides its recording."""
    return [*(result_key(job_id, extension) for extension in RESULT_EXTENSIONS), peaks_key(job_id)]


def job_prefixes(job_id: str) -> tuple[str, ...]:
    """Return the prefixes under which all objects of the job are stored."""
    folders = ("incoming", "uploads", "work", "peaks", "results")
    return tuple(f"{folder}/{job_id}/" for folder in folders)
