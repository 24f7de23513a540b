"""Reader of safetensors files: a length, a JSON header with types, shapes and offsets, then the values."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np

from worker.model_files.types import BF16, F16, F32, TensorType, to_floats
from worker.model_files.weights import Array, Damage

KINDS = {"F32": F32, "F16": F16, "BF16": BF16}
MAX_HEADER = 32_000_000
"""Bytes of the header; that of Whisper large has 200,000."""


class SafeTensors:
    """An open file. shapes: those of its tensors, by name. Raises Damage, OSError."""

    def __init__(self, path: Path) -> None:
        self._part = path.name
        if path.exists() and not path.is_file():  # a pipe would block
            raise Damage(self._part)
        with path.open("rb") as file:
            try:
                self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:  # an empty file
                raise Damage(self._part) from error
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, tuple[TensorType, int, int]] = {}
        try:
            self._read()
        except (ValueError, RecursionError) as error:
            self.close()
            raise Damage(self._part) from error
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        """Register the tensors. Raises Damage, ValueError."""
        length = int.from_bytes(self._data[:8], "little")
        start = 8 + length
        if len(self._data) < 8 or length > MAX_HEADER or start > len(self._data):
            raise Damage(self._part)
        header = json.loads(self._data[8:start])
        if not isinstance(header, dict):
            raise Damage(self._part)
        header.pop("__metadata__", None)
        end = start + max((self._register(name, entry, start) for name, entry in header.items()), default=0)
        if end != len(self._data):
            raise Damage(self._part, len(self._data), end)

    def _register(self, name: str, entry: Any, start: int) -> int:
        """Register a tensor; return the end of its values. Those of other types, which nothing reads, are skipped."""
        entry = entry if isinstance(entry, dict) else {}
        shape, offsets = _sizes(entry.get("shape")), _sizes(entry.get("data_offsets"))
        if shape is None or offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise Damage(f"{self._part}: {name}")
        kind = KINDS.get(str(entry.get("dtype")))
        if kind is not None and shape:
            if kind.size(shape) != offsets[1] - offsets[0]:
                raise Damage(f"{self._part}: {name}")
            self.shapes[name] = shape
            self._places[name] = kind, start + offsets[0], offsets[1] - offsets[0]
        return offsets[1]

    def tensor(self, name: str) -> Array:
        """Return a tensor in 32 bits. Raises KeyError."""
        kind, offset, size = self._places[name]
        return to_floats(np.frombuffer(self._data, np.uint8, size, offset), kind).reshape(self.shapes[name])

    def close(self) -> None:
        self._data.close()


def _sizes(value: Any) -> tuple[int, ...] | None:
    """Return a list of at most 8 numbers from 0 to 2**40; None for anything else."""
    if not isinstance(value, list) or len(value) > 8:
        return None
    return tuple(value) if all(type(number) is int and 0 <= number <= 2**40 for number in value) else None
