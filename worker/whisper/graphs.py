"""OpenVINO graphs of a Whisper model's encoder and decoder.

Matrices are stored as 8-bit integers with one scale for each output channel. Activations are quantised while the model
runs, which needs no calibration and follows the outliers of large models. Weights keep ggml's names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset6, opset13
from openvino.op.util import Variable, VariableInfo

from worker.model_files.weights import Array, Weights

FORMAT = 2
"""Version of the graphs, part of the name of their cached files."""
PROBE_WIDTH = 256
"""Width of the graph that tries what the processor can do."""
EPSILON = 1e-5
"""Whisper's epsilon of layer normalisation."""


def constant(value: Any, kind: type = np.float32) -> Any:
    return opset13.constant(np.array(value, kind, order="C"))


def quantise(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """Return 8-bit weights and their scale by row: shapes (n, m) and (n, 1)."""
    scale = np.abs(weights).max(axis=1, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.clip(np.rint(weights / scale), -127, 127).astype(np.int8), scale.astype(np.float32)


def matrix(weights: Array) -> Any:
    """Return a constant of 8-bit weights with its decompression."""
    values, scale = quantise(weights)
    scaled = opset13.multiply(opset13.convert(constant(values, np.int8), np.float16), constant(scale, np.float16))
    return opset13.convert(scaled, np.float32)


def half(values: Any) -> Any:
    """Convert to 16 bits."""
    return opset13.convert(values, np.float16)


class Layers:
    """Layers of a model, by the names of their weights."""

    def __init__(self, model: Weights, width: int, heads: int) -> None:
        self.model, self.width, self.heads = model, width, heads

    def bias(self, name: str) -> Array:
        """Return a bias; zeros if the layer has none, such as those of keys."""
        return self.model.vector(f"{name}.bias") if f"{name}.bias" in self.model else np.zeros(self.width, np.float32)

    def linear(self, hidden: Any, *names: str) -> Any:
        """Apply linear layers with the same input; their outputs are concatenated."""
        weights = np.concatenate([self.model.tensor(f"{name}.weight") for name in names])
        biases = np.concatenate([self.bias(name) for name in names])
        return opset13.add(opset13.matmul(hidden, matrix(weights), False, True), constant(biases))

    def norm(self, hidden: Any, name: str) -> Any:
        centred = opset13.mvn(hidden, constant([-1], np.int64), True, EPSILON, "inside_sqrt")
        scaled = opset13.multiply(centred, constant(self.model.vector(f"{name}.weight")))
        return opset13.add(scaled, constant(self.model.vector(f"{name}.bias")))

    def convolution(self, hidden: Any, name: str, stride: int) -> Any:
        weights = constant(self.model.tensor(f"{name}.weight"))
        output = opset13.convolution(hidden, weights, [stride], [1], [1], [1])
        return opset13.gelu(opset13.add(output, constant(self.bias(name).reshape(1, -1, 1))), "erf")

    def split_heads(self, hidden: Any) -> Any:
        """Reshape (batch, length, width) to (batch, heads, length, width of a head)."""
        shape = constant([0, -1, self.heads, self.width // self.heads], np.int64)
        return opset13.transpose(opset13.reshape(hidden, shape, True), constant([0, 2, 1, 3], np.int64))

    def join_heads(self, hidden: Any) -> Any:
        joined = opset13.transpose(hidden, constant([0, 2, 1, 3], np.int64))
        return opset13.reshape(joined, constant([0, -1, self.width], np.int64), True)

    def self_projections(self, hidden: Any, name: str) -> list[Any]:
        """Return queries, keys and values by head."""
        joined = self.linear(hidden, f"{name}.query", f"{name}.key", f"{name}.value")
        return [self.split_heads(part) for part in opset13.split(joined, constant(2, np.int64), 3).outputs()]

    def feed_forward(self, hidden: Any, name: str) -> Any:
        inner = opset13.gelu(self.linear(self.norm(hidden, f"{name}.mlp_ln"), f"{name}.mlp.0"), "erf")
        return opset13.add(hidden, self.linear(inner, f"{name}.mlp.2"))


def encoder(model: Weights) -> ov.Model:
    """Return the encoder: `mel` (batch, mels, 3000) to (batch, 1500, width)."""
    header = model.header
    layers = Layers(model, header.audio_width, header.audio_heads)
    mel = opset13.parameter([-1, header.mels, 2 * header.frames], np.float32, name="mel")
    hidden = layers.convolution(layers.convolution(mel, "encoder.conv1", 1), "encoder.conv2", 2)
    hidden = opset13.transpose(hidden, constant([0, 2, 1], np.int64))
    hidden = opset13.add(hidden, constant(model.tensor("encoder.positional_embedding")))
    for index in range(header.audio_layers):
        name = f"encoder.blocks.{index}"
        projections = layers.self_projections(layers.norm(hidden, f"{name}.attn_ln"), f"{name}.attn")
        attended = layers.join_heads(opset13.scaled_dot_product_attention(*projections))
        hidden = opset13.add(hidden, layers.linear(attended, f"{name}.attn.out"))
        hidden = layers.feed_forward(hidden, name)
    return ov.Model([opset13.result(layers.norm(hidden, "encoder.ln_post"))], [mel], "encoder")


def cross_projections(model: Weights) -> ov.Model:
    """Return the decoder's keys and values of the audio.

    `encoded` (batch, 1500, width) to the keys and values of each layer in turn, each (batch, heads, 1500, head width)
    in 16 bits.
    """
    header = model.header
    layers = Layers(model, header.text_width, header.text_heads)
    encoded = opset13.parameter([-1, header.frames, header.audio_width], np.float32, name="encoded")
    outputs = [
        opset13.result(half(layers.split_heads(layers.linear(encoded, f"decoder.blocks.{index}.cross_attn.{kind}"))))
        for index in range(header.text_layers)
        for kind in ("key", "value")
    ]
    return ov.Model(outputs, [encoded], "cross projections")


class _Embedding:
    """The token embedding, which is the output layer as well."""

    def __init__(self, model: Weights) -> None:
        self.weights = matrix(model.tensor("decoder.token_embedding.weight"))
        self.positions = constant(model.tensor("decoder.positional_embedding"))

    def embed(self, tokens: Any, positions: Any) -> Any:
        axis = constant(0, np.int64)
        return opset13.add(opset13.gather(self.weights, tokens, axis), opset13.gather(self.positions, positions, axis))

    def logits(self, hidden: Any) -> Any:
        return opset13.matmul(hidden, self.weights, False, True)


def decoder(model: Weights) -> ov.Model:
    """Return one step of the decoder, with the keys and values of earlier steps as states.

    Inputs: `tokens` (batch, length), `positions` (length), `rows` (batch): the row of the earlier step that each row
    continues, `mask` (1, 1, length, earlier + length) and `cross_mask` (1, 1, length, 1500 + earlier + length), added
    to the scores of attention. Output: logits of the last token (batch, 1, vocabulary).

    States `key0`, `value0` and so on begin empty; the caller sets `cross_key0`, `cross_value0` and so on to the output
    of `cross_projections`. The plug-in's fast attention on 8-bit keys and values needs that each step appends to its
    states, so each step appends zeros to those of the audio, which `cross_mask` hides.
    """
    header = model.header
    layers = Layers(model, header.text_width, header.text_heads)
    embedding = _Embedding(model)
    tokens = opset13.parameter([-1, -1], np.int64, name="tokens")
    positions = opset13.parameter([-1], np.int64, name="positions")
    rows = opset13.parameter([-1], np.int32, name="rows")
    mask = opset13.parameter([-1, 1, -1, -1], np.float32, name="mask")
    cross_mask = opset13.parameter([-1, 1, -1, -1], np.float32, name="cross_mask")
    states = _States(layers, tokens, rows)
    hidden = embedding.embed(tokens, positions)
    for index in range(header.text_layers):
        name = f"decoder.blocks.{index}"
        query, key, value = layers.self_projections(layers.norm(hidden, f"{name}.attn_ln"), f"{name}.attn")
        keys, values = states.append(f"key{index}", key), states.append(f"value{index}", value)
        attended = layers.join_heads(opset13.scaled_dot_product_attention(query, keys, values, mask))
        hidden = opset13.add(hidden, layers.linear(attended, f"{name}.attn.out"))
        query = layers.linear(layers.norm(hidden, f"{name}.cross_attn_ln"), f"{name}.cross_attn.query")
        query = layers.split_heads(query)
        nothing = opset13.multiply(query, constant(0.0))
        keys, values = states.append(f"cross_key{index}", nothing), states.append(f"cross_value{index}", nothing)
        attended = layers.join_heads(opset13.scaled_dot_product_attention(query, keys, values, cross_mask))
        hidden = opset13.add(hidden, layers.linear(attended, f"{name}.cross_attn.out"))
        hidden = layers.feed_forward(hidden, name)
    bounds = (constant([value], np.int64) for value in (-1, 2**31 - 1, 1, 1))
    last = opset13.slice(layers.norm(hidden, "decoder.ln"), *bounds)
    inputs = [tokens, positions, rows, mask, cross_mask]
    return ov.Model([opset13.result(embedding.logits(last))], states.sinks, inputs, "decoder")


class _States:
    """Variables of a graph that grow by one entry a step."""

    def __init__(self, layers: Layers, tokens: Any, rows: Any) -> None:
        batch = opset13.gather(opset13.shape_of(tokens), constant([0], np.int64), constant(0, np.int64))
        head = [layers.heads, 0, layers.width // layers.heads]
        self._empty = opset13.concat([batch, constant(head, np.int64)], 0)
        self._shape = ov.PartialShape([-1, layers.heads, -1, layers.width // layers.heads])
        self._rows = rows
        self.sinks: list[Any] = []

    def append(self, name: str, entries: Any) -> Any:
        """Return the state, its rows reordered, with the entries of this step."""
        info = VariableInfo()
        info.data_shape, info.data_type, info.variable_id = self._shape, ov.Type.f32, name
        variable = Variable(info)
        before = opset6.read_value(opset13.broadcast(constant(0.0), self._empty), variable)
        before = opset13.gather(before, self._rows, constant(0, np.int64))
        state = opset13.concat([before, entries], 2)
        self.sinks.append(opset6.assign(state, variable))
        return state


def attention(model: Weights, heads: Sequence[tuple[int, int]]) -> ov.Model:
    """Return the decoder's attention to the audio over a whole transcript.

    Inputs: `tokens` (1, length) and the outputs of `cross_projections` as `cross_key0` and so on. Output: weights of
    the given (layer, head) pairs, (heads, length, 1500).
    """
    header = model.header
    layers = Layers(model, header.text_width, header.text_heads)
    width = header.text_width // header.text_heads
    tokens = opset13.parameter([-1, -1], np.int64, name="tokens")
    positions = opset13.parameter([-1], np.int64, name="positions")
    hidden = _Embedding(model).embed(tokens, positions)
    inputs, weights = [tokens, positions], dict[tuple[int, int], Any]()
    for index in range(1 + max(layer for layer, _ in heads)):
        name = f"decoder.blocks.{index}"
        projections = layers.self_projections(layers.norm(hidden, f"{name}.attn_ln"), f"{name}.attn")
        attended = layers.join_heads(opset13.scaled_dot_product_attention(*projections, causal=True))
        hidden = opset13.add(hidden, layers.linear(attended, f"{name}.attn.out"))
        query = layers.linear(layers.norm(hidden, f"{name}.cross_attn_ln"), f"{name}.cross_attn.query")
        shape = [-1, header.text_heads, header.frames, width]
        inputs += [opset13.parameter(shape, np.float16, name=f"cross_{kind}{index}") for kind in ("key", "value")]
        key, value = (opset13.convert(parameter, np.float32) for parameter in inputs[-2:])
        scaled = opset13.multiply(layers.split_heads(query), constant(width**-0.5))
        scores = opset13.softmax(opset13.matmul(scaled, key, False, True), -1)
        for layer, head in heads:
            if layer == index:
                weights[layer, head] = opset13.gather(scores, constant([head], np.int64), constant(1, np.int64))
        attended = layers.join_heads(opset13.matmul(scores, value, False, False))
        hidden = opset13.add(hidden, layers.linear(attended, f"{name}.cross_attn.out"))
        hidden = layers.feed_forward(hidden, name)
    joined = opset13.concat([weights[pair] for pair in heads], 1)
    return ov.Model([opset13.result(opset13.squeeze(joined, constant([0], np.int64)))], inputs, "attention")


def probe() -> ov.Model:
    """Return a small graph with what the others need of the processor: 8-bit weights and attention."""
    width = PROBE_WIDTH
    hidden = opset13.parameter([-1, -1, width], np.float32, name="hidden")
    scores = opset13.matmul(hidden, matrix(np.eye(width, dtype=np.float32)), False, True)
    return ov.Model([opset13.result(opset13.softmax(scores, -1))], [hidden], "probe")


GRAPHS: dict[str, Callable[[Weights], ov.Model]] = {
    "encoder": encoder,
    "cross": cross_projections,
    "decoder": decoder,
}
"""Graphs that every transcription needs, by the name of their file."""
