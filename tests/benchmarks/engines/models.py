"""The models of the engine benchmark in a cache: the demo model in each shape, as ggml and CTranslate2 files."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

from tests.benchmarks import ggml_shape
from tests.speech import MODEL, ROOT
from worker.model_files import ggml_writer, open_model

CACHE = Path.home() / ".cache" / "async-stt" / "benchmarks"
BENCH_PYTHON = Path(os.environ.get("BENCH_PYTHON", ROOT / ".venv-bench" / "bin" / "python"))
"""Interpreter of the environment with the packages of requirements-bench.lock."""


@cache
def folder() -> Path:
    """Return the folder of the models made from this demo model by this code."""
    converter = ROOT / "tests" / "benchmarks" / "engines" / "ct2_model.py"
    sources = [MODEL, Path(ggml_shape.__file__), Path(ggml_writer.__file__), converter]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    path = CACHE / "models" / digest
    path.mkdir(parents=True, exist_ok=True)
    return path


def ggml(shape: str, quantisation: str) -> Path:
    """Return a ggml model of the shape, in a folder of its own: the service reads every model of MODELS_DIR."""
    path = folder() / f"{shape}-{quantisation}" / f"ggml-{shape}-{quantisation}.bin"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        wide = ggml_shape.WideModel(open_model(MODEL), ggml_shape.SHAPES[shape])
        ggml_shape.write(path, wide, quantisation)
    return path


def ctranslate2(shape: str) -> Path:
    """Return a CTranslate2 folder of the shape, int8, converted from the f16 file."""
    path = folder() / f"{shape}-ct2"
    if not (path / "mel_filters.npy").exists():
        source = ggml(shape, "f16")
        call = [str(BENCH_PYTHON), "-m", "tests.benchmarks.engines.ct2_model", str(source), str(path)]
        subprocess.run(call, check=True, cwd=ROOT)
    return path
