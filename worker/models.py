"""The models on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from core.domain.models import entry_names, model_of_entry, model_of_file
from core.errors import ModelFileError, ModelMissingError
from worker import model_files

log = structlog.get_logger(__name__)
_State = tuple[tuple[int, int, int, int], ...]


class ModelCatalogue:
    """Whisper models in `folders`, which are searched in order: files `ggml-{name}.bin`, or folders with their name.

    formats: those that the engine reads, modules of `worker.model_files.formats`. A damaged or incomplete model is
    logged and counts as missing. Thread-safe. Checks and checksums are cached until the size, times or inode of a file
    change.
    """

    def __init__(self, folders: Sequence[Path], formats: Sequence[str] = ("ggml",)) -> None:
        self.folders, self.formats = tuple(folders), tuple(formats)
        self._checksums: dict[Path, tuple[_State, str]] = {}
        self._checks: dict[Path, tuple[_State, bool]] = {}
        self._hashing = threading.Lock()
        self._unreadable: set[Path] = set()

    def names(self) -> list[str]:
        """Return the names of all models, sorted. Other files and folders are ignored."""
        paths = [path for folder in self.folders for path in self._files(folder)]
        return sorted({name for path in paths if (name := model_of_entry(path.name)) and self._is_usable(path)})

    def path(self, name: str) -> Path:
        """Return the model's file. Raises ModelMissingError."""
        path = next(self._paths(name), None)
        if path is None:
            raise ModelMissingError("The model {name} is not installed on this machine.", name=name)
        return path

    def find(self, name: str, sha256: str | None) -> Path | None:
        """Return the model file with this checksum (None: any), or None. May read whole files, which takes seconds."""
        for path in self._paths(name):
            try:
                if sha256 is None or self._checksum(path) == sha256:
                    return path
            except OSError:  # removed or replaced meanwhile
                continue
        return None

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of the model file as hex digits. Raises ModelMissingError, OSError."""
        return self._checksum(self.path(name))

    def checksums(self, *, compute: bool = True) -> dict[str, list[str]]:
        """Return the SHA-256 of all files by model name, as hex digits. compute: False for cached ones only."""
        digests: dict[str, list[str]] = {}
        for name in self.names():
            for path in self._paths(name):
                try:
                    digest = self._checksum(path) if compute else self._cached_checksum(path)
                except OSError:
                    continue
                if digest is not None:
                    digests.setdefault(name, []).append(digest)
        return digests

    def _files(self, folder: Path) -> list[Path]:
        """Return the paths in the folder. One that cannot be read counts as empty and is logged once."""
        try:
            paths = list(folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            if folder not in self._unreadable:
                log.warning("models folder cannot be read", action="models_unreadable", reason=repr(error))
            self._unreadable.add(folder)
            return []
        self._unreadable.discard(folder)
        return paths

    def _paths(self, name: str) -> Iterator[Path]:
        for folder in self.folders:
            paths = (folder / entry for entry in entry_names(name) if entry == Path(entry).name)
            yield from (path for path in paths if self._is_usable(path))

    def _is_usable(self, path: Path) -> bool:
        """Return True if the file is a complete model. The reason against one that looks like a model is logged."""
        try:
            named = model_of_file(path.name) is not None or path.is_dir()
            if not named or not model_files.is_model(path, self.formats):
                return False
            state = model_files.state(path)
            known, usable = self._checks.get(path, (None, True))
            if known == state:
                return usable
            model_files.check(path, self.formats)
        except (OSError, ModelMissingError):
            return False
        except ModelFileError as error:
            if usable:  # once, not with each state of a file that is being copied
                log.warning("model refused", action="model_refused", model=path.name, reason=error.message())
            self._checks[path] = state, False
            return False
        self._checks[path] = state, True
        return True

    def _cached_checksum(self, path: Path) -> str | None:
        cached = self._checksums.get(path)
        return cached[1] if cached is not None and cached[0] == model_files.state(path) else None

    def _checksum(self, path: Path) -> str:
        digest = self._cached_checksum(path)
        if digest is not None:
            return digest
        with self._hashing:  # one reader at a time, since files may have gigabytes
            digest = self._cached_checksum(path)
            if digest is None:
                state = model_files.state(path)
                digest = _digest(path)
                self._checksums[path] = (state, digest)
        return digest


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and checksums of a folder's files, as hex digits."""
    digests = {}
    for file in model_files.files(path):
        with file.open("rb") as opened:
            digests[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
    if not path.is_dir():
        return digests[path.name]
    return model_files.folder_digest(digests)
