"""Verification of a whole model: its structure, as at each load, and every value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import ModelDamagedError
from worker.model_files import Weights, files, open_model
from worker.model_tools import CHECKING, Report, silent


@dataclass(frozen=True, slots=True)
class Verified:
    """A model whose tensors are complete and finite. size: bytes; parameters: number of values."""

    path: Path
    size: int
    tensors: int
    parameters: int


def verify(path: Path, report: Report = silent) -> Verified:
    """Read a model in any format. Raises ModelMissingError, ModelUnsupportedError, ModelDamagedError."""
    model = open_model(path)
    try:
        parameters = check_values(model, path.name, report)
    finally:
        model.close()
    return Verified(path, sum(file.stat().st_size for file in files(path)), len(model.header.tensors()), parameters)


def check_values(model: Weights, name: str, report: Report = silent) -> int:
    """Read all tensors; return the number of their values. name: of the model. Raises ModelDamagedError."""
    shapes = model.header.tensors()
    parameters = 0
    for index, tensor in enumerate(shapes):
        values = model.tensor(tensor)
        if not np.isfinite(values).all():
            raise ModelDamagedError(
                "The model {name} is damaged, or no Whisper model: {part} is not valid. Delete it and get it again.",
                name=name,
                part=tensor,
            )
        parameters += values.size
        report(CHECKING, (index + 1) / len(shapes))
    return parameters
