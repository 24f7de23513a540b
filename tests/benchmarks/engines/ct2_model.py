"""Conversion of a ggml Whisper model to a CTranslate2 folder as faster-whisper reads it.

Runs in the environment of the benchmark: `python -m tests.benchmarks.engines.ct2_model MODEL.bin FOLDER`.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ctranslate2.specs import whisper_spec
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.benchmarks.ggml_shape import shape_of
from worker.model_files import Weights, open_model
from worker.model_files.weights import Array

END_OF_TEXT = 50257
LANGUAGES = (
    *("en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr"),
    *("pl", "ca", "nl", "ar", "sv", "it", "id", "hi", "fi", "vi"),
)
"""The first of Whisper's languages, in the order of their tokens."""
TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
TICK = 0.02
"""Seconds between two timestamp tokens."""


def convert(model: Weights, folder: Path, quantisation: str = "int8") -> None:
    """Write model.bin, config.json, vocabulary.json, tokenizer.json and preprocessor_config.json."""
    shape, names = shape_of(model), token_names(model)
    spec = whisper_spec.WhisperSpec(shape.encoder_layers, shape.heads, shape.decoder_layers, shape.heads)
    _Copy(model).fill(spec)
    spec.register_vocabulary(names)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [names.index("Ġ"), END_OF_TEXT]
    spec.config.lang_ids = [END_OF_TEXT + 2 + index for index in range(len(LANGUAGES))]
    spec.config.alignment_heads = [(shape.decoder_layers - 1, head) for head in range(shape.heads)]
    spec.validate()
    spec.optimize(quantization=quantisation)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    tokenizer(model, names).save(str(folder / "tokenizer.json"))
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": shape.mel_bands}))
    np.save(folder / "mel_filters.npy", model.filters)


class _Copy:
    """A copy of a model's tensors in a specification of CTranslate2."""

    def __init__(self, model: Weights) -> None:
        self._model = model

    def fill(self, spec: Any) -> None:
        encoder, decoder = spec.encoder, spec.decoder
        for name in ("conv1", "conv2"):
            self._linear(getattr(encoder, name), f"encoder.{name}")
        encoder.position_encodings.encodings = self._model.tensor("encoder.positional_embedding")
        self._norm(encoder.layer_norm, "encoder.ln_post")
        decoder.embeddings.weight = decoder.projection.weight = self._model.tensor("decoder.token_embedding.weight")
        decoder.position_encodings.encodings = self._model.tensor("decoder.positional_embedding")
        self._norm(decoder.layer_norm, "decoder.ln")
        for side in ("encoder", "decoder"):
            for index, layer in enumerate(getattr(spec, side).layer):
                name = f"{side}.blocks.{index}"
                self._self_attention(layer.self_attention, name)
                self._norm(layer.ffn.layer_norm, f"{name}.mlp_ln")
                self._linear(layer.ffn.linear_0, f"{name}.mlp.0")
                self._linear(layer.ffn.linear_1, f"{name}.mlp.2")
                if side == "decoder":
                    self._cross_attention(layer.attention, f"{name}.cross_attn")

    def _self_attention(self, spec: Any, name: str) -> None:
        self._norm(spec.layer_norm, f"{name}.attn_ln")
        self._fused(spec.linear[0], [f"{name}.attn.{part}" for part in ("query", "key", "value")])
        self._linear(spec.linear[1], f"{name}.attn.out")

    def _cross_attention(self, spec: Any, name: str) -> None:
        self._norm(spec.layer_norm, f"{name}_ln")
        self._linear(spec.linear[0], f"{name}.query")
        self._fused(spec.linear[1], [f"{name}.{part}" for part in ("key", "value")])
        self._linear(spec.linear[2], f"{name}.out")

    def _norm(self, spec: Any, name: str) -> None:
        spec.gamma, spec.beta = self._model.vector(f"{name}.weight"), self._model.vector(f"{name}.bias")

    def _linear(self, spec: Any, name: str) -> None:
        spec.weight, spec.bias = self._model.tensor(f"{name}.weight"), self._bias(name)

    def _fused(self, spec: Any, names: list[str]) -> None:
        spec.weight = np.concatenate([self._model.tensor(f"{name}.weight") for name in names])
        spec.bias = np.concatenate([self._bias(name) for name in names])

    def _bias(self, name: str) -> Array:
        """Return the bias, which is zero for keys."""
        if f"{name}.bias" in self._model:
            return self._model.vector(f"{name}.bias")
        return np.zeros(len(self._model.tensor(f"{name}.weight")), np.float32)


def token_names(model: Weights) -> list[str]:
    """Return the name of each token as in OpenAI's vocabulary files; a language without a code here has its number."""
    count = model.header.vocabulary - END_OF_TEXT - 2 - len(TASKS) - 1501
    languages = [LANGUAGES[index] if index < len(LANGUAGES) else f"language{index}" for index in range(count)]
    special = ["endoftext", "startoftranscript", *languages, *TASKS]
    special += [f"{TICK * index:.2f}" for index in range(1501)]
    letters = byte_letters()
    names = ["".join(letters[byte] for byte in token) for token in model.tokens[:END_OF_TEXT]]
    return names + [f"<|{name}|>" for name in special]


def byte_letters() -> list[str]:
    """Return a visible letter for each byte: itself where it has one, as in GPT-2's vocabulary."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in visible]
    return [chr(byte if byte in visible else 0x100 + others.index(byte)) for byte in range(256)]


def tokenizer(model: Weights, names: list[str]) -> Any:
    """Return the byte-level tokenizer of these tokens."""
    ordinary = dict(zip(names[:END_OF_TEXT], range(END_OF_TEXT), strict=True))
    result = Tokenizer(models.BPE(vocab=ordinary, merges=merges(names[:END_OF_TEXT])))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names[END_OF_TEXT:]])
    return result


def merges(names: list[str]) -> list[tuple[str, str]]:
    """Return the pair of tokens that each token is made of. A ggml file has no merges, but tokens in their order."""
    ranks = {name: rank for rank, name in enumerate(names)}
    pairs = []
    for rank, name in enumerate(names):
        parts = list(name)
        while len(parts) > 2:
            best, place = min((ranks.get(a + b, rank), place) for place, (a, b) in enumerate(pairwise(parts)))
            if best >= rank:
                break
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            pairs.append((parts[0], parts[1]))
    return pairs


if __name__ == "__main__":
    convert(open_model(Path(sys.argv[1])), Path(sys.argv[2]))
