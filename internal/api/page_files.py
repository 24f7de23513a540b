"""Files of the web page, compressed once."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from core.bundled import page_folder

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page. compressed: its gzip form; etag: changes with the content, and has its quotes."""

    media_type: str
    data: bytes
    compressed: bytes

    @property
    def etag(self) -> str:
        return f'W/"{hashlib.sha256(self.data).hexdigest()[:32]}"'


def find_page_file(name: str) -> PageFile | None:
    """Return the file of this name; None if there is none. A file that changes on disk is read again."""
    path = page_folder() / name
    if not _NAME.fullmatch(name) or path.suffix not in MEDIA_TYPES:
        return None
    try:
        changed_at = path.stat().st_mtime_ns
        return _read(path, changed_at)
    except (FileNotFoundError, IsADirectoryError):
        return None


@lru_cache(maxsize=200)
def _read(path: Path, changed_at: int) -> PageFile:
    data = path.read_bytes()
    return PageFile(MEDIA_TYPES[path.suffix], data, gzip.compress(data, mtime=0))
