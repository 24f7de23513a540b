"""Formats of model files: what is read from them, and what is refused."""

from __future__ import annotations

import ctypes
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import pytest

from core.errors import ModelDamagedError, ModelMissingError, ModelUnsupportedError
from tests.model_files import TinyModel, demo, write_ctranslate2, write_huggingface, write_safetensors, write_tiny
from tests.speech import MODEL
from worker.model_files import check, ggml_writer, is_model, known_formats, open_model, types
from worker.model_files.formats.ctranslate2 import CTranslate2Model
from worker.model_files.formats.ggml import GgmlModel
from worker.model_files.formats.huggingface import HuggingFaceModel
from worker.model_files.mel import mel_filters
from worker.model_files.safetensors import SafeTensors
from worker.model_files.types import TYPES, from_floats, to_floats
from worker.model_files.weights import Damage, Weights

RANDOM = np.random.default_rng(1)
ERRORS = {
    "f32": 0.0,
    "f16": 1e-3,
    "bf16": 1e-2,
    "q8_0": 0.02,
    "q6_k": 0.08,
    "q5_0": 0.2,
    "q5_1": 0.2,
    "q5_k": 0.2,
    "q4_0": 0.4,
    "q4_1": 0.4,
    "q4_k": 0.4,
    "q3_k": 0.6,
    "q2_k": 0.9,
}
"""Largest error of values from -1 to 1 by the type of their tensor."""
CT2_KINDS = ("int8", "int8_float16", "int8_bfloat16", "int16", "float16", "bfloat16", "float32")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny") / "ggml-tiny.bin")


@pytest.fixture(scope="module")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("folders")
    return {
        "ctranslate2": write_ctranslate2(folder / "ct2", TinyModel(0.5)),
        "huggingface": write_huggingface(folder / "hf", TinyModel(0.5)),
    }


# -- types -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TYPES)
def test_values_survive_their_type(name: str) -> None:
    kind = TYPES[name]
    values = RANDOM.uniform(-1, 1, (6, 256)).astype(np.float32)
    data = from_floats(values, kind, threads=4)
    assert data.nbytes == kind.size(values.shape)
    assert np.abs(to_floats(data, kind).reshape(values.shape) - values).max() <= ERRORS[name]
    assert data.tobytes() == from_floats(values, kind).tobytes(), "whatever the number of threads"


@pytest.mark.parametrize("name", TYPES)
def test_types_are_those_of_ggml(name: str) -> None:
    kind, library = TYPES[name], types._library()
    library.ggml_blck_size.restype = ctypes.c_int64
    library.ggml_type_size.restype = ctypes.c_size_t
    numbers = library.ggml_blck_size(kind.number), library.ggml_type_size(kind.number)
    assert numbers == (kind.block, kind.block_bytes)
    assert library.ggml_ftype_to_ggml_type(kind.file_type) == kind.number


def test_mel_filters_are_whispers() -> None:
    with_filters = demo()
    assert np.abs(mel_filters(80) - with_filters.filters).max() < 1e-7
    wide = mel_filters(128)
    assert wide.shape == (128, 201)
    assert (wide.max(axis=1) > 0).all()


# -- what is read ----------------------------------------------------------------------------------------------------
def assert_same(model: Weights, reference: Weights, error: float) -> None:
    assert model.header.integers()[:10] == reference.header.integers()[:10]
    assert list(model.tokens[:50257]) == list(reference.tokens[:50257])
    assert np.abs(model.filters - reference.filters).max() < 1e-7
    for name in reference.header.tensors():
        expected = reference.tensor(name)
        assert name in model
        assert np.abs(model.tensor(name) - expected).max() <= error * max(float(np.abs(expected).max()), 1e-6), name


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_a_written_ggml_file_has_the_same_tensors(tmp_path: Path, kind: str) -> None:
    path, reference, shares = tmp_path / "ggml-copy.bin", demo(), list[float]()
    ggml_writer.write(path, reference, TYPES[kind], shares.append, threads=2)
    assert path.stat().st_size == ggml_writer.file_size(reference, TYPES[kind])
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert_same(open_model(path), reference, {"f32": 0, "f16": 1e-3, "q8_0": 0.01}[kind])


@pytest.mark.parametrize("kind", CT2_KINDS)
def test_ctranslate2_folders_have_the_same_tensors(tmp_path: Path, kind: str) -> None:
    model = open_model(write_ctranslate2(tmp_path / "model", demo(), kind))
    assert model.alignment_heads == [(3, 0)]
    assert_same(model, demo(), {"float32": 0.0, "float16": 1e-3}.get(kind, 0.01))


@pytest.mark.parametrize(("kind", "shards"), [("F32", 1), ("F16", 3), ("BF16", 1)])
def test_hugging_face_folders_have_the_same_tensors(tmp_path: Path, kind: str, shards: int) -> None:
    model = open_model(write_huggingface(tmp_path / "model", demo(), kind, shards))
    assert model.alignment_heads == [(3, 0), (3, 1)]
    assert_same(model, demo(), {"F32": 0.0, "F16": 1e-3, "BF16": 0.01}[kind])


def test_a_tokenizer_file_replaces_the_vocabulary(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folders["huggingface"], tmp_path / "model"))
    vocabulary = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").unlink()
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    assert open_model(folder).tokens == TinyModel().tokens


def test_a_vocabulary_of_lines_is_read(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folders["ctranslate2"], tmp_path / "model"))
    names = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").unlink()
    (folder / "vocabulary.txt").write_text("\n".join(names) + "\n")
    assert open_model(folder).tokens == TinyModel().tokens


def test_an_output_layer_of_its_own_is_noticed(tmp_path: Path) -> None:
    folder = write_huggingface(tmp_path / "model", TinyModel(0.5))
    tensors = SafeTensors(folder / "model.safetensors")
    values = {name: tensors.tensor(name) for name in tensors.shapes}
    embedding = values["model.decoder.embed_tokens.weight"]
    for output, own in ((None, False), (embedding, False), (embedding + 1, True)):
        extra = {} if output is None else {"proj_out.weight": output}
        write_safetensors(folder / "model.safetensors", values | extra, "F32")
        assert HuggingFaceModel(folder).has_own_output() == own


# -- what is refused -------------------------------------------------------------------------------------------------
def test_what_is_no_model_is_refused(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    text, folder = tmp_path / "ggml-x.bin", tmp_path / "folder"
    text.write_bytes(b"not a model at all" * 100)
    folder.mkdir()
    for path in (text, folder, tiny_folders["huggingface"]):
        with pytest.raises(ModelUnsupportedError, match=path.name):
            check(path, ("ggml", "ctranslate2"))
    with pytest.raises(ModelMissingError, match="none"):
        check(tmp_path / "none")
    assert [kind.DESCRIPTION for kind in known_formats(("ggml",))] == ["a ggml file"]
    assert is_model(MODEL, ("ggml",))
    assert not is_model(MODEL, ("ctranslate2",))


@pytest.mark.parametrize("change", [-1, -1000, 1, 4096], ids=lambda change: f"{change:+}")
def test_a_file_of_another_length_is_refused_with_both(tmp_path: Path, change: int) -> None:
    whole = MODEL.read_bytes()
    path = tmp_path / "ggml-cut.bin"
    path.write_bytes(whole[:change] if change < 0 else whole + bytes(change))
    with pytest.raises(ModelDamagedError) as caught:
        check(path)
    text = caught.value.message()
    assert all(part in text for part in ("ggml-cut.bin", str(len(whole) + change), str(len(whole)), "get it again"))
    assert caught.value.message("vi") != text


HEADERS = {
    "a negative width": (12, -1),
    "a huge width": (12, 2**31 - 1),
    "a huge number of layers": (20, 2**31 - 1),
    "no heads": (16, 0),
    "heads that do not divide the width": (16, 3),
    "another vocabulary": (4, 60_000),
    "an unknown type": (44, 999),
    "a type that its tensors do not have": (44, 2007),
    "a huge filter": (48, 2**31 - 1),
    "a negative filter": (52, -(2**31)),
    "a filter that is not a number": (56, 0x7FC00000),
}


@pytest.mark.parametrize(("position", "value"), HEADERS.values(), ids=HEADERS)
def test_hostile_headers_are_refused(tmp_path: Path, tiny: Path, position: int, value: int) -> None:
    data = bytearray(tiny.read_bytes())
    struct.pack_into("<i", data, position, value)
    (tmp_path / "ggml-x.bin").write_bytes(data)
    with pytest.raises(ModelDamagedError):
        check(tmp_path / "ggml-x.bin")


def test_hostile_vocabularies_and_tensors_are_refused(tmp_path: Path, tiny: Path) -> None:
    data, path = tiny.read_bytes(), tmp_path / "ggml-x.bin"
    vocabulary = 56 + 4 * 80 * 201
    first = data.index(b"encoder.positional_embedding") - 20
    for position, value in [
        *((vocabulary, count) for count in (-1, 0, 2**31 - 1)),
        *((vocabulary + 4, length) for length in (-1, 2000, 2**31 - 1)),
        *((first, dimensions) for dimensions in (-1, 0, 5, 2**31 - 1)),
        *((first + 4, length) for length in (-1, 0, 2**31 - 1)),
        *((first + 8, kind) for kind in (-1, 1, 4, 2**31 - 1)),
        *((first + 12, size) for size in (-1, 0, 3, 2**31 - 1)),
    ]:
        broken = bytearray(data)
        struct.pack_into("<i", broken, position, value)
        path.write_bytes(broken)
        with pytest.raises(ModelDamagedError):
            check(path)
    path.write_bytes(data.replace(b"decoder.ln.weight", b"encoder.xx.weight"))
    with pytest.raises(ModelDamagedError):
        check(path)
    path.write_bytes(data.replace(b"decoder.ln.weight", b"decoder.ln.bias\0\0"))
    with pytest.raises(ModelDamagedError):
        check(path)


def mutations(data: bytes, places: list[int], count: int) -> list[bytes]:
    """Return copies with a few changed bytes near the places, cut, or with a part twice."""
    copies = []
    for _ in range(count):
        broken = bytearray(data)
        for _ in range(int(RANDOM.integers(1, 4))):
            place = int(RANDOM.choice(places)) + int(RANDOM.integers(-16, 48))
            broken[max(0, min(place, len(data) - 1))] = int(
                RANDOM.choice([0, 1, 127, 128, 255, int(RANDOM.integers(256))])
            )
        match int(RANDOM.integers(8)):
            case 0:
                broken = broken[: int(RANDOM.integers(len(broken)))]
            case 1:
                place = int(RANDOM.choice(places))
                broken[place:place] = broken[place : place + 8]
        copies.append(bytes(broken))
    return copies


def refused(read: Callable[[bytes], object], copies: list[bytes]) -> int:
    """Read each copy; return how many were refused. Any other exception, or much memory, fails the test."""
    count, before = 0, getrusage(RUSAGE_SELF).ru_maxrss
    for copy in copies:
        try:
            read(copy)
        except Damage:
            count += 1
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < 200_000, "nothing is allocated for what a header claims"
    return count


def test_random_damage_to_ggml_headers_never_crashes(tmp_path: Path, tiny: Path) -> None:
    data, path = tiny.read_bytes(), tmp_path / "ggml-x.bin"
    places = [0, 24, 48, 56 + 4 * 80 * 201] + [tensor.offset - 40 for tensor in GgmlModel(tiny)._tensors.values()]

    def read(copy: bytes) -> None:
        path.write_bytes(copy)
        GgmlModel(path).close()

    assert refused(read, mutations(data, places, 150)) > 100


def test_random_damage_to_ctranslate2_headers_never_crashes(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(tiny_folders["ctranslate2"], tmp_path / "model"))
    data = (folder / "model.bin").read_bytes()
    places = [0, 16, *(place for name in (b"encoder/", b"decoder/") for place in _places(data, name))]

    def read(copy: bytes) -> None:
        (folder / "model.bin").write_bytes(copy)
        CTranslate2Model(folder).close()

    assert refused(read, mutations(data, places, 150)) > 75


def test_random_damage_to_safetensors_never_crashes(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    path = tmp_path / "model.safetensors"
    data = (tiny_folders["huggingface"] / "model.safetensors").read_bytes()
    places = [0, 0, *_places(data, b"data_offsets"), *_places(data, b"shape")]

    def read(copy: bytes) -> None:
        path.write_bytes(copy)
        SafeTensors(path).close()

    assert refused(read, mutations(data, places, 300)) > 150


def _places(data: bytes, text: bytes) -> list[int]:
    places, start = [], data.find(text)
    while start >= 0:
        places.append(start)
        start = data.find(text, start + 1)
    return places


BAD_FILES = {
    "config.json": [b"", b"[]", b"[" * 100_000, b'{"d_model": "64"}', b'{"d_model": 1e999}', b"\xff\xfe"],
    "vocab.json": [b"", b"[]", b'{"a": 1}', b'{"a": 0, "b": 0}', b'{"a": "0"}', b'{"\\ud800": 0}'],
    "generation_config.json": [b"", b"[]", b"nan"],
    "model.safetensors": [b"", b"\0" * 8, b"\xff" * 100, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"[" * 9],
}


@pytest.mark.parametrize("file", BAD_FILES)
def test_bad_files_of_a_folder_are_refused(tmp_path: Path, tiny_folders: dict[str, Path], file: str) -> None:
    folder = Path(shutil.copytree(tiny_folders["huggingface"], tmp_path / "model"))
    for content in BAD_FILES[file]:
        (folder / file).write_bytes(content)
        with pytest.raises(ModelDamagedError):
            check(folder)


def test_an_index_names_files_of_its_folder_only(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(tiny_folders["huggingface"], tmp_path / "model"))
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    maps: tuple[Any, ...] = (
        {"a": "../model.safetensors"},
        {"a": str(tmp_path / "model.safetensors")},
        {"a": 1},
        {},
        [],
    )
    for weight_map in maps:
        index.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(ModelDamagedError):
            check(folder)
    index.write_text(json.dumps({"weight_map": {"a": "model-00001.safetensors"}}))
    with pytest.raises(ModelMissingError):
        check(folder)


def test_odd_alignment_heads_are_ignored(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    folder = Path(shutil.copytree(tiny_folders["ctranslate2"], tmp_path / "model"))
    for heads in (None, [], [[0]], [[9, 0]], [[0, -1]], [["0", 0]], [[0, 0], [5, 5]], {"a": 1}):
        (folder / "config.json").write_text(json.dumps({"alignment_heads": heads}))
        assert open_model(folder).alignment_heads is None
