"""Quantisation of a ggml file with ggml's own routines, as whisper.cpp's `quantize` does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from core.domain.models import QUANTISATIONS, model_of_file
from core.errors import InvalidFieldError, ModelDamagedError, ModelUnsupportedError
from core.machine import usable_cores
from worker.model_files import Weights, ggml_writer, open_model
from worker.model_files.formats.ggml import GgmlModel
from worker.model_files.types import QUANTISED, TensorType, type_of_tensor
from worker.model_tools import WRITING, Report, silent
from worker.model_tools.importing import default_name, write_heads
from worker.model_tools.installation import Installed, install

TYPES = {kind.name: kind for kind in QUANTISED}
MAX_ERRORS = {
    "q8_0": 0.02,
    "q6_k": 0.05,
    "q5_0": 0.1,
    "q5_1": 0.1,
    "q5_k": 0.1,
    "q4_0": 0.2,
    "q4_1": 0.2,
    "q4_k": 0.2,
    "q3_k": 0.35,
    "q2_k": 0.6,
}
"""Largest error of a matrix by its type, relative to its values (root mean square): twice that of normal values."""


def quantise(
    source: Path, folder: Path, kind: str, name: str | None = None, report: Report = silent, *, replace: bool = False
) -> Installed:
    """Install a quantised copy of a ggml file of 16 or 32 bits. kind: one of TYPES; name: None for the source's and it.

    The error of each matrix is checked. Raises InvalidFieldError, ModelMissingError and ModelUnsupportedError for
    the arguments, and the errors of `install`.
    """
    if kind not in TYPES:
        raise InvalidFieldError(
            "type", "The type {value} is unknown. Use {allowed}.", value=ascii(kind[:100]), allowed=", ".join(TYPES)
        )
    model = open_model(source, ("ggml",))
    try:
        matrices = TYPES[kind]
        check_kinds(model, source.name, matrices)

        def write(temporary: Path) -> None:
            ggml_writer.write(temporary, model, matrices, lambda share: report(WRITING, share), usable_cores())
            compare(model, temporary, matrices)

        made = name or f"{plain_name(source)}-{kind}"
        size = ggml_writer.file_size(model, matrices)
        installed = install(made, folder, size, write, report, replace=replace, as_folder=False)
        write_heads(installed.path, model)
        return installed
    finally:
        model.close()


def plain_name(source: Path) -> str:
    """Return the name of a model without that of its type."""
    name = model_of_file(source.name) or default_name(source)
    return next((name.removesuffix(kind) for kind in QUANTISATIONS if kind and name.endswith(kind)), name)


def check_kinds(model: Weights, name: str, matrices: TensorType) -> None:
    """Raises ModelUnsupportedError if the model is quantised already, or its rows are no whole blocks of the type."""
    if isinstance(model, GgmlModel) and model.kind in QUANTISED:
        raise ModelUnsupportedError(
            "{name} is quantised already. Quantise the file of 16 bits that it was made from.", name=name
        )
    if model.header.audio_width % matrices.block:
        raise ModelUnsupportedError(
            "{kind} needs a width that is a multiple of {block}; that of {name} is {width}. Use q5_0, q8_0 or q4_0.",
            kind=matrices.name,
            block=matrices.block,
            name=name,
            width=model.header.audio_width,
        )


def compare(model: Weights, path: Path, matrices: TensorType) -> None:
    """Compare each matrix with the original. Raises ModelDamagedError if it differs by more than its type explains."""
    quantised = open_model(path, ("ggml",))
    try:
        for name, shape in model.header.tensors().items():
            limit = MAX_ERRORS.get(type_of_tensor(matrices, name, shape).name, 1e-3)
            original = model.tensor(name)
            error = float(np.sqrt(np.mean((quantised.tensor(name) - original) ** 2)))
            if error > limit * float(np.sqrt(np.mean(original**2))) + 1e-9:
                raise ModelDamagedError(
                    "Quantising the tensor {part} of {name} gave wrong values. The disk or the memory may be faulty.",
                    name=path.name,
                    part=name,
                )
    finally:
        quantised.close()
