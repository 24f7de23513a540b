"""Models of a models folder: ggml files, and folders of CTranslate2 that an import has kept as they are."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from core.domain.models import DETECTOR, entry_names, model_of_entry, model_of_file
from core.errors_models import ModelNotManagedError
from worker import model_files
from worker.model_files.formats import ctranslate2
from worker.model_files.formats.ggml import heads_file
from worker.model_store.part import digests

FOLDER_FORMAT, FILE_FORMAT = "ctranslate2", "ggml"


@dataclass(frozen=True, slots=True)
class Record:
    """A model that was installed here. installed: seconds since 1970. size and mtime identify it on the disk."""

    source: str
    size: int
    mtime_ns: int
    checksums: dict[str, str]
    installed: float
    written: bool
    """True if it was written by a pull or made here; False for a file put here by hand whose checksum was verified."""
    made: bool = False
    """True if it was imported or quantised here: it is no published file, whatever its name."""


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model. size: bytes of all its files. record: None for one put here by hand and never verified."""

    name: str
    path: Path
    size: int
    mtime_ns: int
    record: Record | None

    @property
    def identity(self) -> tuple[int, int]:
        """A value that changes when the model is written or replaced."""
        return self.size, self.mtime_ns

    @property
    def removable(self) -> bool:
        return self.record is not None and self.record.written

    @property
    def format(self) -> str:
        """The module of `worker.model_files.formats` that reads it."""
        return FOLDER_FORMAT if self.path.is_dir() else FILE_FORMAT

    @property
    def transcribes(self) -> bool:
        """False for a voice detector, whose tensors are others."""
        return not self.name.startswith(DETECTOR)


def names(folder: Path) -> list[str]:
    """Return the names of the models and voice detectors in a folder. One that cannot be read has none."""
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError:
        return []
    found = (model_of_file(path.name, detectors=True) or model_of_entry(path.name) for path in paths)
    return list(dict.fromkeys(name for name in found if name is not None))


def find(folder: Path, name: str) -> InstalledModel | None:
    """Return the model with this name, a file before a folder, or None. Its record is not read."""
    for entry in entry_names(name):
        path = folder / entry
        try:
            if entry != Path(entry).name or not _is_model(path):
                continue
            states = [file.stat() for file in model_files.files(path)]
        except OSError:
            continue
        return InstalledModel(
            name, path, sum(state.st_size for state in states), max(state.st_mtime_ns for state in states), None
        )
    return None


def _is_model(path: Path) -> bool:
    """Return True for a file with the name of a model, complete or not, and for a folder that looks like one."""
    if path.is_file():
        return model_of_file(path.name, detectors=True) is not None
    return model_files.is_model(path, (FOLDER_FORMAT,))


def checksums(
    model: InstalledModel, algorithms: Iterable[str], on_bytes: Callable[[int], None] = lambda _: None
) -> dict[str, str]:
    """Return the model's digests as hex digits: that of the file, or of the names and digests of the folder's files.

    on_bytes: called with the number of bytes read so far. Raises OSError.
    """
    if not model.path.is_dir():
        return digests(model.path, algorithms, on_bytes)
    done, found = 0, {}
    for file in model_files.files(model.path):
        found[file.name] = digests(file, {"sha256"}, lambda read, before=done: on_bytes(before + read))["sha256"]  # type: ignore[misc]
        done += file.stat().st_size
    return {"sha256": model_files.folder_digest(found)}


def remove(model: InstalledModel) -> None:
    """Remove a model. Raises ModelNotManagedError for a folder with other files, OSError."""
    if not model.path.is_dir():
        model.path.unlink(missing_ok=True)
        heads_file(model.path).unlink(missing_ok=True)
        return
    if model.path.is_symlink() or set(model.path.iterdir()) != set(ctranslate2.parts(model.path)):
        raise ModelNotManagedError(
            "{name} was not written by `stt models pull`. Remove it by hand.", name=str(model.path)
        )
    # a reader finds all of it, or nothing
    hidden = model.path.with_name(f".{model.path.name}.{secrets.token_hex(4)}.part")
    model.path.rename(hidden)
    shutil.rmtree(hidden)
