"""Memory that engine processes need: an estimate, to refuse a start that cannot go well."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from worker.model_files import files, open_model


@dataclass(frozen=True, slots=True)
class Estimate:
    """Memory of an engine process: `fixed` bytes, the files of the model if they are held as they are, and `per_value`
    bytes for each of its parameters."""

    fixed: int
    holds_files: bool = True
    per_value: float = 0.0


ESTIMATES = {"openvino": Estimate(360_000_000, holds_files=False, per_value=5.9)}
"""Engines that do not merely hold the model's file.

OpenVINO: 0.8 GB with the shape of Whisper base (74 million parameters) and 1.8 GB with that of small (244 million),
with batches of four and graphs for two numbers of threads (`docs/models.md`).
"""
PLAIN = Estimate(100_000_000)
"""whisper.cpp: the file, and 0.1 GB for buffers (`docs/models.md`). Also for `auto`, which may use it."""


def process_bytes(engine: str, path: Path) -> int:
    """Return the estimated bytes of one engine process with this model. Raises the errors of `open_model`, OSError."""
    estimate = ESTIMATES.get(engine, PLAIN)
    model = open_model(path)
    parameters = sum(math.prod(shape) for shape in model.header.tensors().values())
    model.close()
    held = sum(file.stat().st_size for file in files(path)) if estimate.holds_files else 0
    return estimate.fixed + held + int(estimate.per_value * parameters)
