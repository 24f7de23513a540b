"""The format of model files."""

from __future__ import annotations

from pathlib import Path

from core.errors import ModelMissingError

GGML_MAGIC = 0x67676D6C.to_bytes(4, "little")


def has_ggml_magic(path: Path) -> bool:
    """Return True if the file starts like a ggml model. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == GGML_MAGIC


def check_format(path: Path) -> None:
    """Raises ModelMissingError if the file cannot be read or is not in ggml format, on which whisper.cpp crashes."""
    try:
        valid = has_ggml_magic(path)
    except OSError as error:
        raise ModelMissingError("The model file {name} cannot be read.", name=path.name) from error
    if not valid:
        raise ModelMissingError("{name} is not a ggml model file.", name=path.name)
