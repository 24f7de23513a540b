"""Import of models in any format: into a ggml file that every engine reads, or, if wanted, as the folder that it is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from core.domain.models import model_of_entry, model_of_file
from core.errors import ModelUnsupportedError
from core.machine import usable_cores
from worker.model_files import Weights, ggml_writer, open_model
from worker.model_files.formats import ctranslate2, ggml, huggingface
from worker.model_files.types import F16
from worker.model_tools import WRITING, Report, silent
from worker.model_tools.installation import Installed, install

BLOCK = 16 << 20
"""Bytes that are copied at once."""


def import_model(
    source: Path,
    folder: Path,
    name: str | None = None,
    report: Report = silent,
    *,
    keep: bool = False,
    replace: bool = False,
) -> Installed:
    """Install the model at `source`, a file or folder in one of the formats of `worker.model_files`, in `folder`.

    name: None for one from the source's name. keep: True to copy a CTranslate2 folder as it is, for the OpenVINO
    engine. replace: True to replace a file of this name. A ggml file is copied, others become a ggml file of 16 bits.

    Raises ModelMissingError and ModelUnsupportedError for the source, and the errors of `install`.
    """
    model = open_model(source)
    try:
        keep = keep and isinstance(model, ctranslate2.CTranslate2Model)
        if isinstance(model, huggingface.HuggingFaceModel) and model.has_own_output():
            raise ModelUnsupportedError(
                "{name} has an output layer of its own, which Whisper models have not.", name=source.name
            )

        def write(temporary: Path) -> None:
            if keep:
                _copy_folder(source, temporary, report)
            elif isinstance(model, ggml.GgmlModel):
                _copy(source, temporary, report)
            else:
                ggml_writer.write(temporary, model, F16, lambda share: report(WRITING, share), usable_cores())

        size = _size(source, model, keep=keep)
        made = install(name or default_name(source), folder, size, write, report, replace=replace, as_folder=keep)
        if not keep:
            write_heads(made.path, model)
        return made
    finally:
        model.close()


def default_name(source: Path) -> str:
    """Return the model's name from that of its file or folder: `ggml-x.bin`, `faster-whisper-x` and `x` → `x`."""
    name = source.resolve().name
    stem = model_of_file(source.name) or (model_of_entry(name) or "").removesuffix(".bin")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "model"


def _size(source: Path, model: Weights, *, keep: bool) -> int:
    """Return the bytes of the model to be written."""
    if keep:
        return sum(file.stat().st_size for file in ctranslate2.parts(source))
    return source.stat().st_size if isinstance(model, ggml.GgmlModel) else ggml_writer.file_size(model, F16)


def _copy(source: Path, target: Path, report: Report) -> None:
    total, done = max(source.stat().st_size, 1), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(BLOCK):
            writer.write(block)
            done += len(block)
            report(WRITING, min(done / total, 1))


def _copy_folder(source: Path, target: Path, report: Report) -> None:
    target.mkdir()
    for file in ctranslate2.parts(source):
        if file.name == ctranslate2.MODEL:
            _copy(file, target / file.name, report)
        else:
            shutil.copyfile(file, target / file.name)


def write_heads(path: Path, model: Weights) -> None:
    """Write the alignment heads beside a ggml file, which has no place for them."""
    heads = ggml.heads_file(path)
    heads.unlink(missing_ok=True)
    if model.alignment_heads:
        heads.write_text(json.dumps({"alignment_heads": [list(pair) for pair in model.alignment_heads]}) + "\n")
