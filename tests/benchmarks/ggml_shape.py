"""Widening of a small ggml Whisper model to the exact shape of a larger one: the larger model's cost, the same words.

- Every channel of the residual stream stands several times, so LayerNorm's mean and variance are unchanged.
- A weight that reads the stream is divided by the number of copies and repeated along its input; one that writes it is
  repeated along its output.
- The last LayerNorm of the decoder is divided as well, since the tied output embedding sums the copies.
- Added heads, hidden units, layers and mel bands are computed in full and write nothing into the stream.

So a benchmark of the widened file costs what the real model of that shape costs, with real decode lengths, and needs no
download. It says nothing about the accuracy of the real model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worker.model_files import Weights, ggml_writer
from worker.model_files.types import TYPES
from worker.model_files.weights import Array

POSITIONS = ("encoder.positional_embedding", "decoder.positional_embedding")


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a Whisper model."""

    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    mel_bands: int = 80


SHAPES = {
    "tiny": Shape(384, 6, 4, 4),
    "base": Shape(512, 8, 6, 6),
    "small": Shape(768, 12, 12, 12),
    "medium": Shape(1024, 16, 24, 24),
    "large-v3-turbo": Shape(1280, 20, 32, 4, 128),
}
"""Shapes of OpenAI's models: model cards of github.com/openai/whisper. Mel bands beyond the source's 80 are silent."""


def shape_of(model: Weights) -> Shape:
    header = model.header
    return Shape(header.audio_width, header.audio_heads, header.audio_layers, header.text_layers, header.mels)


class WideModel(Weights):
    """A model of the target's shape that computes the same function as the source, whose width divides the target's."""

    def __init__(self, source: Weights, target: Shape) -> None:
        width = shape_of(source).width
        if target.width % width:
            raise ValueError(f"{target.width} is not a multiple of {width}")
        self._tensors = _Widener(source, target).widen(shape_of(source))
        self.header = replace(
            source.header,
            audio_width=target.width,
            audio_heads=target.heads,
            audio_layers=target.encoder_layers,
            text_width=target.width,
            text_heads=target.heads,
            text_layers=target.decoder_layers,
            mels=target.mel_bands,
        )
        self.filters = np.pad(source.filters, ((0, target.mel_bands - len(source.filters)), (0, 0)))
        self.tokens = source.tokens

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str) -> Array:
        return self._tensors[name]

    def close(self) -> None: ...


class _Widener:
    def __init__(self, source: Weights, target: Shape) -> None:
        self._source, self._target = source.tensor, target
        self._copies = target.width // shape_of(source).width
        self._random = np.random.default_rng(1)
        self._tensors: dict[str, Array] = {}

    def widen(self, source: Shape) -> dict[str, Array]:
        self._convolutions()
        for name in (*POSITIONS, "decoder.token_embedding.weight"):
            self._tensors[name] = np.tile(self._source(name), (1, self._copies))
        for side, layers, present in (
            ("encoder", self._target.encoder_layers, source.encoder_layers),
            ("decoder", self._target.decoder_layers, source.decoder_layers),
        ):
            for index in range(layers):
                self._layer(f"{side}.blocks.{index}", copied=index < present, crossed=side == "decoder")
        self._norm("encoder.ln_post", copied=True)
        self._norm("decoder.ln", copied=True)
        for name in ("decoder.ln.weight", "decoder.ln.bias"):
            self._tensors[name] /= self._copies
        return self._tensors

    def _convolutions(self) -> None:
        first = self._source("encoder.conv1.weight")
        first = np.pad(first, ((0, 0), (0, self._target.mel_bands - first.shape[1]), (0, 0)))
        self._tensors["encoder.conv1.weight"] = self._writing(first)
        second: Array = self._source("encoder.conv2.weight") / np.float32(self._copies)
        self._tensors["encoder.conv2.weight"] = self._writing(np.tile(second, (1, self._copies, 1)))
        for name in ("encoder.conv1.bias", "encoder.conv2.bias"):
            self._tensors[name] = self._writing(self._source(name))

    def _layer(self, name: str, *, copied: bool, crossed: bool) -> None:
        width = self._target.width
        for attention in ("attn", "cross_attn")[: 1 + crossed]:
            for part in ("query", "key", "value"):
                self._reading_linear(f"{name}.{attention}.{part}", width, copied=copied, biased=part != "key")
            self._writing_linear(f"{name}.{attention}.out", width, copied=copied)
            self._norm(f"{name}.{attention}_ln", copied=copied)
        self._reading_linear(f"{name}.mlp.0", 4 * width, copied=copied)
        self._writing_linear(f"{name}.mlp.2", 4 * width, copied=copied)
        self._norm(f"{name}.mlp_ln", copied=copied)

    def _reading_linear(self, name: str, outputs: int, *, copied: bool, biased: bool = True) -> None:
        weight = (self._random.standard_normal((outputs, self._target.width)) * 0.02).astype(np.float32)
        bias = np.zeros(outputs, np.float32)
        if copied:
            source = self._source(f"{name}.weight")
            weight[: len(source)] = np.tile(source / self._copies, (1, self._copies))
        if copied and biased:
            source_bias = self._source(f"{name}.bias")
            bias[: len(source_bias)] = source_bias
        self._tensors[f"{name}.weight"] = weight
        if biased:
            self._tensors[f"{name}.bias"] = bias

    def _writing_linear(self, name: str, inputs: int, *, copied: bool) -> None:
        weight = np.zeros((self._target.width, inputs), np.float32)
        bias = np.zeros(self._target.width, np.float32)
        if copied:
            source = self._writing(self._source(f"{name}.weight"))
            weight[:, : source.shape[1]] = source
            bias = self._writing(self._source(f"{name}.bias"))
        self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"] = weight, bias

    def _norm(self, name: str, *, copied: bool) -> None:
        empty: dict[str, Callable[[int], Array]] = {"weight": _ones, "bias": _zeros}
        for part, fill in empty.items():
            key = f"{name}.{part}"
            self._tensors[key] = self._writing(self._source(key)) if copied else fill(self._target.width)

    def _writing(self, values: Array) -> Array:
        return np.tile(values, (self._copies, *[1] * (values.ndim - 1)))


def _ones(count: int) -> Array:
    return np.ones(count, np.float32)


def _zeros(count: int) -> Array:
    return np.zeros(count, np.float32)


def write(path: Path, model: Weights, quantisation: str) -> None:
    """Write the model. quantisation: a key of `worker.model_files.types.TYPES`."""
    temporary = path.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    ggml_writer.write(temporary, model, TYPES[quantisation])
    temporary.replace(path)
