"""The OpenVINO engine's batches, and its cache beside the model file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.domain.job_options import JobOptions
from core.errors import ModelDamagedError, UnsupportedLanguageError
from tests.speech import MODEL, ROOT, Audio, recording, word_error_rate
from worker.engine import build
from worker.transcriber import Call, Engine, EngineOutput, EngineSpec, Options, Samples
from worker.whisper.openvino_settings import FOLDER

pytestmark = pytest.mark.speech


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copy(MODEL, tmp_path / MODEL.name))


def load(model: Path) -> Engine:
    return build(EngineSpec("openvino", model))


def samples(audio: Audio) -> Samples:
    return np.asarray(audio, np.float32) / np.float32(32768)


def caches(model: Path) -> list[Path]:
    return [path for path in (model.parent / FOLDER).iterdir() if path.is_dir()]


def assert_works(engine: Engine) -> None:
    audio, reference = recording("en", 2, seed=3)
    [output] = engine.transcribe([Call(samples(audio), Options("en"))], threads=1)
    assert isinstance(output, EngineOutput)
    assert word_error_rate(reference, " ".join(segment.text for segment in output.segments)) == 0


def test_calls_with_different_options_share_batches(model: Path) -> None:
    """Prompts of two lengths, a sampled one, an unknown language, a detected one, no samples, and two windows."""
    english, vietnamese = recording("en", 5, seed=3, pause=0.6), recording("vi", 5, seed=4, pause=0.6)
    long = np.concatenate([english[0]] * 3)
    nothing = np.zeros(0, np.float32)
    calls = [
        (Call(samples(english[0]), Options("en", job=JobOptions(prompt="printer"))), english[1]),
        (Call(samples(vietnamese[0]), Options("vi", job=JobOptions(words=True))), vietnamese[1]),
        (Call(samples(english[0]), Options("klingon")), None),
        (Call(samples(vietnamese[0]), Options("auto", job=JobOptions(temperature=0.2))), vietnamese[1]),
        (Call(nothing, Options("en", job=JobOptions(words=True))), ""),
        (Call(samples(long), Options("auto")), " ".join([english[1]] * 3)),
    ]
    outputs = load(model).transcribe([call for call, _ in calls], threads=2)
    for output, (call, reference) in zip(outputs, calls, strict=True):
        if reference is None:
            assert isinstance(output, UnsupportedLanguageError)
            continue
        assert isinstance(output, EngineOutput)
        text = " ".join(segment.text for segment in output.segments)
        assert word_error_rate(reference, text) <= 3 if reference else text == ""
        assert all(bool(segment.words) == call.options.job.words for segment in output.segments)
    assert outputs[3].language == "vi"  # type: ignore[union-attr]
    assert outputs[5].encodes == -(-len(long) // (30 * 16000))  # type: ignore[union-attr]


def test_a_damaged_cache_is_written_again(model: Path) -> None:
    load(model)
    [cache] = caches(model)
    (cache / "decoder.bin").write_bytes(b"")
    assert_works(load(model))
    load(model)
    assert caches(model) == [cache]
    assert (cache / "decoder.bin").stat().st_size > 0


def test_the_cache_of_a_replaced_model_is_removed(model: Path) -> None:
    load(model)
    [old] = caches(model)
    os.utime(model, (1, 1))
    assert_works(load(model))
    [new] = caches(model)
    assert new != old


def test_a_folder_that_cannot_be_written_needs_no_cache(model: Path) -> None:
    (model.parent / FOLDER).touch()
    assert_works(load(model))


def test_a_truncated_model_is_rejected(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(ModelDamagedError):
        load(model)


def test_openvino_reports_nothing_to_its_authors() -> None:
    code = "import sys, worker.whisper.runtime; print('openvino' in sys.modules, sys.modules['openvino_telemetry'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True None\n"


@pytest.mark.parametrize("instructions", ["AVX2", "AVX2_VNNI"])
def test_older_instruction_sets_give_the_same_words(instructions: str) -> None:
    code = """if True:
        from tests.integration.test_openvino import MODEL, assert_works, load
        assert_works(load(MODEL))
    """
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
