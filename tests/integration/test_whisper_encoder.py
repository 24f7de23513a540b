"""The OpenVINO encoder that whisper.cpp uses, made from a model file, and the checksum that names it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from tests.speech import MODEL, ROOT
from worker.engine import build
from worker.transcriber import EngineSpec
from worker.whisper.openvino_settings import FOLDER
from worker.whisper_encoder import _checksum, encoder_for

pytestmark = pytest.mark.speech


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    return Path(shutil.copy(MODEL, tmp_path / "models" / MODEL.name))


def kept_checksum(model: Path) -> Path:
    [path] = Path(os.environ["XDG_CACHE_HOME"]).rglob("checksums/*.json")
    assert path.stem.startswith(model.stem)
    return path


def encode(encoder: Path) -> NDArray[np.float32]:
    mel = np.random.default_rng(1).standard_normal((1, 80, 3000)).astype(np.float32)
    return np.array(ov.Core().compile_model(encoder, "CPU")(mel)[0])


def test_an_encoder_made_from_kept_graphs_is_that_of_the_weights(model: Path) -> None:
    alone = encoder_for(model)
    assert alone is not None
    expected = encode(alone)
    shutil.rmtree(model.parent / FOLDER)
    build(EngineSpec("openvino", model))  # keeps its graphs
    again = encoder_for(model)
    assert again == alone
    assert np.array_equal(encode(again), expected)


@pytest.mark.parametrize(("instructions", "precision"), [("AVX2", "f32"), ("AVX512_CORE_BF16", None)])
def test_an_encoder_is_made_for_the_instructions_that_are_allowed(
    instructions: str, precision: str | None, model: Path
) -> None:
    code = f"""
import pathlib
from worker.whisper_encoder import encoder_for
print(encoder_for(pathlib.Path({str(model)!r})))
"""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    encoder = Path(done.stdout.decode().strip())
    assert encoder.is_file(), done.stdout
    native = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    expected = precision or ("bf16" if native else "f32")
    assert f'<INFERENCE_PRECISION_HINT value="{expected}"' in encoder.read_text()


def test_a_model_is_read_once(model: Path) -> None:
    checksum = hashlib.sha256(model.read_bytes()).hexdigest()
    assert _checksum(model) == checksum
    kept = kept_checksum(model)
    kept.write_text(kept.read_text().replace(checksum, "kept"))
    assert _checksum(model) == "kept"
    with model.open("ab") as file:
        file.write(b"more")
    assert _checksum(model) == hashlib.sha256(model.read_bytes()).hexdigest()


def test_a_model_that_took_the_place_of_another_is_read_again(model: Path) -> None:
    before = _checksum(model)
    times = model.stat()
    other = model.with_name("other")
    other.write_bytes(model.read_bytes()[:-1] + b"x")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(model)
    assert model.stat().st_mtime_ns == times.st_mtime_ns
    assert _checksum(model) != before


@pytest.mark.parametrize("content", ["", "null", "{}", "[1]", "[[], 1]", json.dumps([[[0, 0, 0, 0]], "0"]), "ÿ"])
def test_a_damaged_cache_costs_another_reading(content: str, model: Path) -> None:
    checksum = _checksum(model)
    kept_checksum(model).write_text(content, encoding="latin-1")
    assert _checksum(model) == checksum
    assert json.loads(kept_checksum(model).read_text())[1] == checksum


def test_a_cache_that_cannot_be_written_costs_a_reading_each_time(model: Path) -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "async-stt"
    cache.mkdir(parents=True)
    (cache / "checksums").write_text("not a folder")
    assert _checksum(model) == _checksum(model) == hashlib.sha256(model.read_bytes()).hexdigest()
