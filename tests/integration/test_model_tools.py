"""Import, quantisation and verification of models, with the demo model as every format."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import (
    DiskFullError,
    InvalidFieldError,
    ModelDamagedError,
    ModelExistsError,
    ModelLockedError,
    ModelMissingError,
    ModelUnsupportedError,
    ModelUnusableError,
    SttError,
)
from tests.model_files import TinyModel, demo, write_ctranslate2, write_huggingface, write_safetensors, write_tiny
from tests.speech import MODEL, ROOT
from worker.model_files import Weights, ggml_writer, open_model
from worker.model_files.safetensors import SafeTensors
from worker.model_files.types import F16, TYPES, from_floats, to_floats
from worker.model_store import lock
from worker.model_tools import CHECKING, TRYING, WRITING, installation
from worker.model_tools.importing import default_name, import_model
from worker.model_tools.quantising import MAX_ERRORS, check_kinds, compare, plain_name, quantise
from worker.model_tools.trial import Heard, try_model
from worker.model_tools.verification import verify
from worker.models import ModelCatalogue

SAMPLES = {language: (ROOT / "assets" / "samples" / f"hello.{language}.txt").read_text() for language in ("en", "vi")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The demo model in each format."""
    folder = tmp_path_factory.mktemp("sources")
    f16 = folder / "ggml-demo-f16.bin"
    ggml_writer.write(f16, demo(), F16)
    return {
        "ggml": f16,
        "huggingface": write_huggingface(folder / "whisper-demo", demo(), shards=2),
        "ctranslate2": write_ctranslate2(folder / "faster-whisper-demo", demo()),
    }


@pytest.fixture
def hears(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial is of no interest, and takes seconds."""
    monkeypatch.setattr(installation, "try_model", lambda *_: [Heard("en", "hello", 0.9)])


def words(text: str) -> list[str]:
    return re.sub(r"[^\w\s]", "", text.lower()).split()


def assert_hears_the_samples(heard: tuple[Heard, ...]) -> None:
    assert {sample.language: words(sample.text) for sample in heard} == {
        language: words(text) for language, text in SAMPLES.items()
    }


def same_values(model: Weights, reference: Weights, error: float) -> None:
    for name in reference.header.tensors():
        expected = reference.tensor(name)
        assert np.abs(model.tensor(name) - expected).max() <= error * np.abs(expected).max() + 1e-9, name


# -- import ----------------------------------------------------------------------------------------------------------
@pytest.mark.speech
@pytest.mark.parametrize("kind", ["ggml", "huggingface", "ctranslate2"])
def test_an_imported_model_has_the_same_tensors_and_words(tmp_path: Path, sources: dict[str, Path], kind: str) -> None:
    phases: list[tuple[str, float]] = []
    made = import_model(sources[kind], tmp_path, "mine", lambda *state: phases.append(state))
    assert made.path == tmp_path / "ggml-mine.bin"
    assert ModelCatalogue([tmp_path]).names() == ["mine"]
    assert_hears_the_samples(made.heard)
    same_values(open_model(made.path), demo(), 0.01 if kind == "ctranslate2" else 0.001)
    assert list(dict.fromkeys(phase for phase, _ in phases)) == [WRITING, CHECKING, TRYING]
    assert all(0 <= share <= 1 for _, share in phases)
    left = {path.name for path in tmp_path.iterdir()} - {".pull", "ggml-mine.heads.json"}
    assert left == {"ggml-mine.bin"}
    heads = {"huggingface": [(3, 0), (3, 1)], "ctranslate2": [(3, 0)], "ggml": None}[kind]
    assert open_model(made.path).alignment_heads == heads


@pytest.mark.speech
def test_a_ctranslate2_folder_is_kept_on_request(tmp_path: Path, sources: dict[str, Path]) -> None:
    source = Path(shutil.copytree(sources["ctranslate2"], tmp_path / "faster-whisper-mine"))
    (source / "README.md").write_text("not a part of the model")
    made = import_model(source, tmp_path / "models", keep=True)
    assert made.path == tmp_path / "models" / "mine"
    assert sorted(path.name for path in made.path.iterdir()) == ["config.json", "model.bin", "vocabulary.json"]
    assert_hears_the_samples(made.heard)
    assert list((made.path.parent / ".openvino").glob("*.part*")) == [], "graphs of the trial"
    with pytest.raises(ModelExistsError):
        import_model(source, tmp_path / "models", keep=True, replace=True)


def test_heads_of_another_import_do_not_stay(tmp_path: Path, sources: dict[str, Path], hears: None) -> None:
    made = import_model(sources["huggingface"], tmp_path, "mine")
    assert open_model(made.path).alignment_heads
    with pytest.raises(ModelExistsError, match=r"ggml-mine\.bin"):
        import_model(sources["ggml"], tmp_path, "mine")
    import_model(sources["ggml"], tmp_path, "mine", replace=True)
    assert open_model(made.path).alignment_heads is None


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("ggml-base.en-q5_0.bin", "base.en-q5_0"),
        ("faster-whisper-large-v3", "large-v3"),
        ("PhoWhisper medium", "PhoWhisper-medium"),
        ("...", "model"),
    ],
)
def test_models_are_named_after_their_source(source: str, name: str, tmp_path: Path) -> None:
    assert default_name(tmp_path / "x" / source) == name


# -- quantisation ----------------------------------------------------------------------------------------------------
@pytest.mark.speech
@pytest.mark.parametrize("kind", ["q5_0", "q8_0", "q4_0"])
def test_a_quantised_model_has_the_same_words(tmp_path: Path, sources: dict[str, Path], kind: str) -> None:
    made = quantise(sources["ggml"], tmp_path, kind)
    assert made.path.name == f"ggml-demo-{kind}.bin"
    assert made.size < sources["ggml"].stat().st_size * 0.65
    assert_hears_the_samples(made.heard)


def test_the_shipped_model_is_what_quantisation_makes(tmp_path: Path, sources: dict[str, Path], hears: None) -> None:
    """The demo model was quantised by whisper.cpp's program; ours leaves the same tensors in 16 and 32 bits."""
    made = quantise(sources["ggml"], tmp_path, "q5_0")
    assert made.path.stat().st_size == MODEL.stat().st_size
    assert made.path.read_bytes()[:48] == MODEL.read_bytes()[:48]


@pytest.mark.parametrize("kind", MAX_ERRORS)
def test_the_bounds_allow_what_a_type_does_to_normal_values(kind: str) -> None:
    values = np.random.default_rng(1).standard_normal((64, 1024)).astype(np.float32)
    again = to_floats(from_floats(values, TYPES[kind]), TYPES[kind]).reshape(values.shape)
    error = float(np.sqrt(np.mean((again - values) ** 2)))
    assert MAX_ERRORS[kind] / 8 < error < MAX_ERRORS[kind] / 1.5


def test_wrong_values_are_noticed(tmp_path: Path) -> None:
    class Spoiled(TinyModel):
        def tensor(self, name: str) -> Any:
            return super().tensor(name) * (-1 if name == "decoder.blocks.0.mlp.0.weight" else 1)

    path = tmp_path / "ggml-x.bin"
    ggml_writer.write(path, Spoiled(0.5), F16)
    compare(Spoiled(0.5), path, F16)
    with pytest.raises(ModelDamagedError, match=r"decoder\.blocks\.0\.mlp\.0\.weight"):
        compare(TinyModel(0.5), path, F16)


def test_what_cannot_be_quantised_is_refused(tmp_path: Path, sources: dict[str, Path]) -> None:
    refusals: dict[str, tuple[type[SttError], Path, str]] = {
        "quantised already": (ModelUnsupportedError, MODEL, "q8_0"),
        "that of ggml-demo-f16.bin is 128": (ModelUnsupportedError, sources["ggml"], "q4_k"),
        "q9_9": (InvalidFieldError, sources["ggml"], "q9_9"),
        "known format": (ModelUnsupportedError, sources["ctranslate2"], "q5_0"),
        "cannot be read": (ModelMissingError, tmp_path / "none.bin", "q5_0"),
    }
    for text, (error, source, kind) in refusals.items():
        with pytest.raises(error, match=text):
            quantise(source, tmp_path, kind)
    assert list(tmp_path.iterdir()) == []
    check_kinds(TinyModel(), "x", F16)
    assert plain_name(Path("ggml-base.en-f16.bin")) == "base.en"


# -- what goes wrong -------------------------------------------------------------------------------------------------
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, sources: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(sources["huggingface"], tmp_path / "model"))
    [first, *_] = sorted(folder.glob("*.safetensors"))
    tensors = SafeTensors(first)
    values = {name: tensors.tensor(name) for name in tensors.shapes}
    for bad in (np.nan, np.inf, 1e6):  # the last one is too large for 16 bits
        name = "model.encoder.layers.0.fc1.weight"
        assert name in values
        spoiled = values[name].copy()
        spoiled[0, 0] = bad
        write_safetensors(first, values | {name: spoiled}, "F32")
        with pytest.raises(ModelDamagedError, match=r"mlp\.0\.weight"):
            import_model(folder, tmp_path / "models", "bad")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".pull"]


@pytest.mark.speech
def test_a_model_without_words_is_not_offered(tmp_path: Path, sources: dict[str, Path]) -> None:
    with pytest.raises(ModelUnusableError):
        import_model(write_tiny(tmp_path / "ggml-tiny.bin"), tmp_path / "models")
    assert ModelCatalogue([tmp_path / "models"]).names() == []
    with pytest.raises(ModelUnusableError, match=r"engine failed on the model none: .*none\.bin"):
        try_model(tmp_path / "none.bin", "none")


def test_conditions_are_checked_before_anything_is_written(
    tmp_path: Path, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch, hears: None
) -> None:
    source = sources["ggml"]
    for name in ("../x", "", "a/b", ".x", "x" * 101, "a b", "x\n"):
        with pytest.raises(InvalidFieldError, match="not valid"):
            installation.check_name(name)
    monkeypatch.setattr(installation, "LOCK_SECONDS", 0.0)
    (tmp_path / ".pull").mkdir()
    with lock.hold(tmp_path / ".pull" / "lock", "other", lambda _: None), pytest.raises(ModelLockedError):
        import_model(source, tmp_path, "x")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**8))
    with pytest.raises(DiskFullError, match=r"100 MB free, the model needs 118 MB"):
        import_model(source, tmp_path, "x")
    assert [path.name for path in tmp_path.iterdir()] == [".pull"]


def test_what_a_killed_import_left_is_removed(tmp_path: Path, sources: dict[str, Path], hears: None) -> None:
    left = tmp_path / ".ggml-x.bin.0123.part"
    left.write_bytes(b"half a model")
    import_model(sources["ggml"], tmp_path, "x")
    assert not left.exists()


def test_an_interrupted_import_leaves_nothing(
    tmp_path: Path, sources: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(installation, "try_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_model(sources["ctranslate2"], tmp_path, "x")
    assert [path.name for path in tmp_path.iterdir()] == [".pull"]


# -- verification ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["ggml", "huggingface", "ctranslate2"])
def test_whole_models_are_verified(sources: dict[str, Path], kind: str) -> None:
    verified = verify(sources[kind])
    assert (verified.tensors, verified.parameters) == (
        167,
        sum(int(np.prod(s)) for s in demo().header.tensors().values()),
    )
    assert verified.size > 9_000_000


def test_verification_reads_every_value(tmp_path: Path, sources: dict[str, Path]) -> None:
    data = bytearray(sources["ggml"].read_bytes())
    data[-3:] = b"\xff\xff\x7f"
    (tmp_path / "ggml-x.bin").write_bytes(data)
    open_model(tmp_path / "ggml-x.bin").close()
    with pytest.raises(ModelDamagedError):
        verify(tmp_path / "ggml-x.bin")


def test_bad_heads_beside_a_model_are_refused(tmp_path: Path) -> None:
    path = write_tiny(tmp_path / "ggml-x.bin")
    heads = tmp_path / "ggml-x.heads.json"
    heads.write_text(json.dumps({"alignment_heads": [[0, 0]]}))
    assert open_model(path).alignment_heads == [(0, 0)]
    heads.write_text("no JSON")
    with pytest.raises(ModelDamagedError, match=r"ggml-x\.heads\.json"):
        open_model(path)
