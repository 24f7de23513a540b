"""The model files this machine has."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

from core.domain.models import file_name, model_of_file
from core.errors import ModelMissingError

MAGIC = struct.pack("<I", 0x67676D6C)


class ModelCatalogue:
    """Whisper models in ggml format, `ggml-{name}.bin`, in the first of `folders` that has them."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        self._checksums: dict[tuple[Path, int, int], str] = {}

    def names(self) -> list[str]:
        """Names of the models there are, sorted; files that are no ggml models are passed over."""
        found = {name for folder in self.folders if folder.is_dir() for name in _names_in(folder)}
        return sorted(found)

    def path(self, name: str) -> Path:
        """Raises ModelMissingError."""
        for folder in self.folders:
            path = folder / file_name(name)
            if path.is_file():
                return path
        raise ModelMissingError("The model {name} is not on this machine.", name=name)

    def sha256(self, name: str) -> str:
        """Hex digest of the model file; remembered while size and time stay. Reads the whole file the first time."""
        path = self.path(name)
        state = path.stat()
        key = (path, state.st_size, state.st_mtime_ns)
        if key not in self._checksums:
            with path.open("rb") as file:
                self._checksums[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._checksums[key]


def _names_in(folder: Path) -> list[str]:
    return [name for path in folder.iterdir() if (name := model_of_file(path.name)) and _is_ggml(path)]


def _is_ggml(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == MAGIC
    except OSError:
        return False
