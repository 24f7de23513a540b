"""Whisper model files: one module of `formats/` for each format, a common reading interface, and a ggml writer."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from core.errors import ModelMissingError, ModelUnsupportedError
from worker.model_files.weights import Damage
from worker.model_files.weights import Weights as Weights


class Format(Protocol):
    """A module of `formats/`. DESCRIPTION: a few words for messages."""

    DESCRIPTION: str

    def recognises(self, path: Path) -> bool:
        """Return True if the path looks like this format. Cheap: reads a few bytes at most. Raises OSError."""
        ...

    def read(self, path: Path) -> Weights:
        """Open a model and check that each tensor of its shape is there and complete. Raises Damage, OSError."""
        ...


def known_formats(names: Sequence[str] | None = None) -> Iterator[Format]:
    """Yield the formats with these names, all by default, in the order of their names."""
    package = importlib.import_module(f"{__name__}.formats")
    for module in pkgutil.iter_modules(package.__path__):
        if names is None or module.name in names:
            yield cast(Format, importlib.import_module(f"{package.__name__}.{module.name}"))


def is_model(path: Path, names: Sequence[str] | None = None) -> bool:
    """Return True if the path looks like a model in one of the formats. Raises OSError."""
    return any(kind.recognises(path) for kind in known_formats(names))


def open_model(path: Path, names: Sequence[str] | None = None) -> Weights:
    """Open a model in one of the formats; its header, tensors and length are checked, and no weight is read.

    Raises ModelMissingError if it cannot be read, ModelUnsupportedError if it is in none of the formats, and
    ModelDamagedError.
    """
    try:
        for kind in known_formats(names):
            if kind.recognises(path):
                return kind.read(path)
    except Damage as damage:
        raise damage.error(path) from damage
    except OSError as error:
        raise ModelMissingError("The model file {name} cannot be read.", name=path.name) from error
    known = ", ".join(kind.DESCRIPTION for kind in known_formats(names))
    raise ModelUnsupportedError("{name} is not a model in a known format ({formats}).", name=path.name, formats=known)


def check(path: Path, names: Sequence[str] | None = None) -> None:
    """Check a model as `open_model` does, with its errors, before a library reads it that would crash."""
    open_model(path, names).close()


def files(path: Path) -> list[Path]:
    """Return the files of a model: itself, or those in its folder, sorted. Raises OSError."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))


def folder_digest(digests: Mapping[str, str]) -> str:
    """Return the SHA-256 of a model in a folder. digests: SHA-256 of each file by name; all as hex digits."""
    return hashlib.sha256("".join(f"{digest} {name}\n" for name, digest in digests.items()).encode()).hexdigest()


def state(path: Path) -> tuple[tuple[int, int, int, int], ...]:
    """Return a value that changes if a file of the model is written or replaced. Raises OSError."""
    states = (file.stat() for file in files(path))
    return tuple((state.st_size, state.st_mtime_ns, state.st_ino, state.st_ctime_ns) for state in states)
