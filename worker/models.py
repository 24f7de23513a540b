"""The model files this machine has."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.domain.models import file_name, model_of_file
from core.errors import ModelMissingError

MAGIC = struct.pack("<I", 0x67676D6C)
_FileState = tuple[int, int, int, int]


class ModelCatalogue:
    """Whisper models in ggml format, `ggml-{name}.bin`, in the first of `folders` that has them.

    Safe to use from several threads. A checksum is computed once, until size, time or inode of its file change.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._checksums: dict[Path, tuple[_FileState, str]] = {}
        self._hashing = threading.Lock()

    def names(self) -> list[str]:
        """Names of the models there are, sorted; files that are no ggml models are passed over."""
        found = {name for folder in self.folders if folder.is_dir() for name in _names_in(folder)}
        return sorted(found)

    def path(self, name: str) -> Path:
        """Raises ModelMissingError."""
        path = next(self._paths(name), None)
        if path is None:
            raise ModelMissingError("The model {name} is not installed on this machine.", name=name)
        return path

    def find(self, name: str, sha256: str | None) -> Path | None:
        """The model file with this checksum (None: any), in whichever folder it is. May read whole files."""
        for path in self._paths(name):
            try:
                if sha256 is None or self._checksum(path) == sha256:
                    return path
            except OSError:  # removed or replaced meanwhile
                continue
        return None

    def sha256(self, name: str) -> str:
        """Hex digest of the model file. Reads the whole file the first time. Raises ModelMissingError."""
        return self._checksum(self.path(name))

    def checksums(self, *, compute: bool = True) -> dict[str, list[str]]:
        """Hex digests of every model's files by name. compute=False: only those that are known without reading."""
        found: dict[str, list[str]] = {}
        for name in self.names():
            for path in self._paths(name):
                try:
                    digest = self._checksum(path) if compute else self._cached_checksum(path)
                except OSError:
                    continue
                if digest is not None:
                    found.setdefault(name, []).append(digest)
        return found

    def _paths(self, name: str) -> Iterator[Path]:
        return (path for folder in self.folders if (path := folder / file_name(name)).is_file())

    def _cached_checksum(self, path: Path) -> str | None:
        kept = self._checksums.get(path)
        return kept[1] if kept is not None and kept[0] == _file_state(path) else None

    def _checksum(self, path: Path) -> str:
        digest = self._cached_checksum(path)
        if digest is not None:
            return digest
        with self._hashing:  # one reader: several slots asking at once would each read gigabytes
            digest = self._cached_checksum(path)
            if digest is None:
                state = _file_state(path)
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                self._checksums[path] = (state, digest)
        return digest


def _file_state(path: Path) -> _FileState:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino, state.st_ctime_ns


def _names_in(folder: Path) -> list[str]:
    return [name for path in folder.iterdir() if (name := model_of_file(path.name)) and _has_ggml_magic(path)]


def _has_ggml_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False
