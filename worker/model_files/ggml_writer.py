"""Writer of ggml files from a model in any format, tensor by tensor."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from worker.model_files.formats.ggml import MAGIC
from worker.model_files.types import TensorType, file_type, from_floats, type_of_tensor
from worker.model_files.weights import Array, Weights

Progress = Callable[[float], None]
"""Callback with the share that is done, 0..1."""


def write(
    path: Path, model: Weights, matrices: TensorType, progress: Progress = lambda _: None, threads: int = 1
) -> None:
    """Write a new file whose matrices have this type. threads: those of quantisation.

    Raises OSError, EngineUnavailableError, ValueError if rows of the model are no whole blocks of the type.
    """
    shapes = model.header.tensors()
    total = file_size(model, matrices)
    with path.open("xb") as file:
        _write_head(file, model, matrices)
        for name, shape in shapes.items():
            _write_tensor(file, name, model.tensor(name), type_of_tensor(matrices, name, shape), threads)
            progress(file.tell() / total)


def file_size(model: Weights, matrices: TensorType) -> int:
    """Return the bytes of the file that `write` makes. Raises ValueError as `write` does."""
    head = 12 * 4 + 8 + model.filters.nbytes + 4 + sum(4 + len(token) for token in model.tokens)
    return head + sum(
        12 + 4 * len(shape) + len(name) + type_of_tensor(matrices, name, shape).size(shape)
        for name, shape in model.header.tensors().items()
    )


def _write_head(file: BinaryIO, model: Weights, matrices: TensorType) -> None:
    header = replace(model.header, file_type=file_type(matrices))
    file.write(struct.pack("<12i", MAGIC, *header.integers()))
    file.write(struct.pack("<2i", *model.filters.shape) + model.filters.astype("<f4").tobytes())
    file.write(struct.pack("<i", len(model.tokens)))
    for token in model.tokens:
        file.write(struct.pack("<i", len(token)) + token)


def _write_tensor(file: BinaryIO, name: str, values: Array, kind: TensorType, threads: int) -> None:
    file.write(struct.pack("<3i", values.ndim, len(name), kind.number))
    file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + name.encode("ascii"))
    file.write(from_floats(values, kind, threads).tobytes())
