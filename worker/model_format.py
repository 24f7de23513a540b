"""The format of model files."""

from __future__ import annotations

from pathlib import Path

GGML_MAGIC = 0x67676D6C.to_bytes(4, "little")


def has_ggml_magic(path: Path) -> bool:
    """Return True if the file starts like a ggml model. Raises OSError."""
    with path.open("rb") as file:
        return file.read(4) == GGML_MAGIC
