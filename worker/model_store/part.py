"""The unfinished download of one file: its bytes, and what is known of the whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from core.files import BLOCK_SIZE, sync

GGML_MAGIC = b"lmgg"


@dataclass(frozen=True, slots=True)
class PartInfo:
    """The file that a part belongs to. source: the reference; etag: ETag of the server that sent the bytes."""

    source: str
    size: int | None
    sha256: str | None
    etag: str

    @property
    def validator(self) -> str:
        """The ETag for If-Range, which has to be a strong one."""
        return self.etag if self.etag.startswith('"') else ""


class Part:
    """`FILE.part` in the folder of unfinished downloads, with `FILE.part.json`."""

    def __init__(self, folder: Path, file: str) -> None:
        self.path = folder / f"{file}.part"
        self._info_path = folder / f"{file}.part.json"

    @property
    def size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def info(self) -> PartInfo | None:
        """Return what the bytes belong to; None if there are none, or it is unknown."""
        try:
            return PartInfo(**json.loads(self._info_path.read_text())) if self.size else None
        except (OSError, ValueError, TypeError):
            return None

    def start(self, info: PartInfo) -> None:
        """Drop the bytes and note the file that the next ones belong to."""
        self.drop()
        write_json(self._info_path, asdict(info))

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._info_path.unlink(missing_ok=True)

    def sync(self) -> None:
        """Write the bytes to the disk."""
        sync(self.path)

    def finish(self, target: Path) -> None:
        """Rename the complete file."""
        self.path.rename(target)
        sync_folder(target.parent)
        self._info_path.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write a small JSON file so that a reader sees the old content or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    draft.write_text(json.dumps(value))
    draft.replace(path)


def sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk, as far as the file system can."""
    with contextlib.suppress(OSError):
        sync(folder)


def digests(path: Path, algorithms: Iterable[str], on_block: Callable[[int], None] = lambda _: None) -> dict[str, str]:
    """Return the file's digests as hex digits. on_block: called with the number of bytes read so far."""
    hashes = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    count = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_SIZE):
            for state in hashes.values():
                state.update(block)
            count += len(block)
            on_block(count)
    return {name: state.hexdigest() for name, state in hashes.items()}


def looks_like_ggml(path: Path) -> bool:
    """Return True if the file starts like a ggml model. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(GGML_MAGIC)) == GGML_MAGIC
