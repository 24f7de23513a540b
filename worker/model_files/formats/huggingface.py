"""Folders in Hugging Face's format: config.json, vocabulary, and weights as safetensors, in one file or several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.model_files import json_files
from worker.model_files.mel import mel_filters
from worker.model_files.safetensors import SafeTensors
from worker.model_files.shape import Header
from worker.model_files.weights import Array, Damage, Weights

DESCRIPTION = "a folder with config.json and model.safetensors"
CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SIZES = (
    *("vocab_size", "max_source_positions", "d_model", "encoder_attention_heads", "encoder_layers"),
    *("max_target_positions", "d_model", "decoder_attention_heads", "decoder_layers", "num_mel_bins"),
)
"""Fields of config.json in the order of the header."""
LAYERS = {
    "attn.query": "self_attn.q_proj",
    "attn.key": "self_attn.k_proj",
    "attn.value": "self_attn.v_proj",
    "attn.out": "self_attn.out_proj",
    "attn_ln": "self_attn_layer_norm",
    "cross_attn.query": "encoder_attn.q_proj",
    "cross_attn.key": "encoder_attn.k_proj",
    "cross_attn.value": "encoder_attn.v_proj",
    "cross_attn.out": "encoder_attn.out_proj",
    "cross_attn_ln": "encoder_attn_layer_norm",
    "mlp.0": "fc1",
    "mlp.2": "fc2",
    "mlp_ln": "final_layer_norm",
    "conv1": "conv1",
    "conv2": "conv2",
    "ln_post": "layer_norm",
    "ln": "layer_norm",
    "token_embedding": "embed_tokens",
}
"""Hugging Face's name of each layer."""
OUTPUT = "proj_out.weight"
EMBEDDING = "decoder.token_embedding.weight"


def recognises(path: Path) -> bool:
    return path.is_dir() and (path / CONFIG).is_file() and any((path / name).is_file() for name in (SINGLE, INDEX))


def read(path: Path) -> Weights:
    return HuggingFaceModel(path)


class HuggingFaceModel(Weights):
    """An open folder. Raises Damage, OSError."""

    def __init__(self, folder: Path) -> None:
        config = json_files.read_json(folder / CONFIG)
        self.header = _header(config)
        if (invalid := next(self.header.invalid_fields(), None)) is not None:
            raise Damage(f"{CONFIG}: {invalid}")
        self.tokens = json_files.text_tokens(_token_names(folder))
        self.filters = mel_filters(self.header.mels)
        self.alignment_heads = self._alignment_heads(folder)
        self._files = [SafeTensors(path) for path in _weight_files(folder)]
        self._tensors = {name: (file, name) for file in self._files for name in file.shapes}
        try:
            for name, shape in self.header.tensors().items():
                self._check(name, shape)
        except BaseException:
            self.close()
            raise

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        """Raises Damage if a tensor is missing or has another shape."""
        wanted = shape[:1] if shape[1:] == (1,) else shape
        file, stored = self._find(name)
        if file.shapes[stored] != wanted:
            raise Damage(stored)

    def _find(self, name: str) -> tuple[SafeTensors, str]:
        """Return the file and the name in it. Models without a head lack the prefix. Raises Damage."""
        stored = stored_name(name)
        for candidate in (f"model.{stored}", stored):
            if candidate in self._tensors:
                return self._tensors[candidate]
        raise Damage(stored)

    def _alignment_heads(self, folder: Path) -> list[tuple[int, int]] | None:
        path = folder / "generation_config.json"
        config = json_files.read_json(path) if path.is_file() else {}
        return json_files.alignment_heads(
            config.get("alignment_heads"), self.header.text_layers, self.header.text_heads
        )

    def __contains__(self, name: str) -> bool:
        return name in self.header.tensors()

    def tensor(self, name: str) -> Array:
        file, stored = self._find(name)
        return file.tensor(stored).reshape(self.header.tensors()[name])

    def has_own_output(self) -> bool:
        """Return True if the output layer differs from the token embedding, which no engine here can compute."""
        if OUTPUT not in self._tensors:
            return False
        file, stored = self._tensors[OUTPUT]
        output, embedding = file.tensor(stored), self.tensor(EMBEDDING)
        return output.shape != embedding.shape or bool((output != embedding).any())

    def close(self) -> None:
        for file in self._files:
            file.close()


def _header(config: Mapping[str, Any]) -> Header:
    """Return the sizes that config.json states. Raises Damage."""
    sizes = [config.get(name) for name in SIZES]
    if not all(type(size) is int for size in sizes):
        raise Damage(CONFIG)
    vocabulary, frames, width, heads, layers, length, text_width, text_heads, text_layers, mels = (
        int(size) for size in sizes if size is not None
    )
    return Header(vocabulary, frames, width, heads, layers, length, text_width, text_heads, text_layers, mels, 0)


def stored_name(name: str) -> str:
    """Return Hugging Face's name of a tensor, without the prefix `model`."""
    layer, _, suffix = name.rpartition(".")
    if suffix == "positional_embedding":
        return f"{layer}.embed_positions.weight"
    side, *rest = layer.split(".", 3)
    if rest[0] == "blocks":
        return f"{side}.layers.{rest[1]}.{LAYERS[rest[2]]}.{suffix}"
    return f"{side}.{LAYERS[rest[0]]}.{suffix}"


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights. Raises Damage."""
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    names = json_files.read_json(folder / INDEX).get("weight_map")
    files = list(names.values()) if isinstance(names, dict) else []
    if not files or not all(isinstance(file, str) and file == Path(file).name for file in files):
        raise Damage(INDEX)
    return [folder / file for file in sorted(set(files))]


def _token_names(folder: Path) -> list[Any]:
    """Return the names of the text tokens in the order of their numbers, which have no gaps. Raises Damage, OSError."""
    if (folder / "vocab.json").is_file():
        numbers: Mapping[str, Any] = json_files.read_json(folder / "vocab.json")
    else:
        model = json_files.read_json(folder / "tokenizer.json").get("model")
        numbers = model.get("vocab", {}) if isinstance(model, dict) else {}
    if not isinstance(numbers, dict) or not all(type(number) is int for number in numbers.values()):
        raise Damage("vocabulary")
    ordered = sorted(numbers.items(), key=lambda item: item[1])
    if [number for _, number in ordered] != list(range(len(ordered))):
        raise Damage("vocabulary")
    return [name for name, _ in ordered]
