"""Times of tokens from the decoder's attention to the audio, as in OpenAI's `whisper/timing.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.domain.models import original_of_file
from worker.model_files import Weights
from worker.token_segments import TOP_LAYERS

FRAME = 0.02
"""Seconds of one frame of the encoder's output."""
FILTER_WIDTH = 7
"""Frames of the median filter."""
ALIGNMENT_HEADS = {
    "tiny.en": "1.0 2.0 2.5 3.0 3.1 3.2 3.3 3.4",
    "tiny": "2.2 3.0 3.2 3.3 3.4 3.5",
    "base.en": "3.3 4.7 5.1 5.5 5.7",
    "base": "3.1 4.2 4.3 4.7 5.1 5.2 5.4 5.6",
    "small.en": "6.6 7.0 7.3 7.8 8.2 8.5 8.7 9.0 9.4 9.8 9.10 10.0 10.1 10.2 10.3 10.6 10.11 11.2 11.4",
    "small": "5.3 5.9 8.0 8.4 8.7 8.8 9.0 9.7 9.9 10.5",
    "medium.en": "11.4 14.1 14.12 14.14 15.4 16.0 16.4 16.9 17.12 17.14 18.7 18.10 18.15 20.0 20.3 20.9 20.14 21.12",
    "medium": "13.15 15.4 15.15 16.1 20.0 23.4",
    "large-v1": "9.19 11.2 11.4 11.17 22.7 22.11 22.17 23.2 23.15",
    "large-v2": "10.12 13.17 16.11 16.12 16.13 17.15 17.16 18.4 18.11 18.19 19.11 21.2 21.3 22.3 22.9 22.12 23.5 23.7 "
    "23.13 25.5 26.1 26.12 27.15",
    "large-v3-turbo": "2.4 2.11 3.3 3.6 3.11 3.14",
    "large-v3": "7.0 10.17 12.18 13.12 16.1 17.14 19.11 21.4 24.1 25.6",
}
"""Layer and head of the attention that follows the audio, in OpenAI's models."""


def alignment_heads(file_name: str, model: Weights) -> list[tuple[int, int]]:
    """Return (layer, head) pairs: the model's own, those of OpenAI's model of this name, or the last layers' heads."""
    if model.alignment_heads:
        return list(model.alignment_heads)
    header, original = model.header, original_of_file(file_name)
    if original is not None:
        pairs = [pair.split(".") for pair in ALIGNMENT_HEADS[original].split()]
        known = [(int(layer), int(head)) for layer, head in pairs]
        if all(layer < header.text_layers and head < header.text_heads for layer, head in known):
            return known
    layers = range(max(header.text_layers - TOP_LAYERS, 0), header.text_layers)
    return [(layer, head) for layer in layers for head in range(header.text_heads)]


def token_starts(attention: NDArray[np.float32], frames: int) -> list[float]:
    """Return the start of each token in seconds.

    attention: weights of shape (heads, tokens, frames), those of the first `frames` frames count.
    """
    weights = attention[:, :, : max(frames, 1)]
    weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-10)
    deviation = weights.std(axis=1, keepdims=True)
    weights = (weights - weights.mean(axis=1, keepdims=True)) / np.maximum(deviation, 1e-10)
    path_tokens, path_frames = shortest_path(-_median_filter(weights).mean(axis=0))
    first = np.searchsorted(path_tokens, np.arange(attention.shape[1]))
    return [float(frame) for frame in path_frames[np.minimum(first, len(path_frames) - 1)] * FRAME]


def _median_filter(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Filter along the last axis, whose ends are mirrored."""
    half = FILTER_WIDTH // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, FILTER_WIDTH, axis=-1)
    return np.asarray(np.partition(windows, half, axis=-1)[..., half], np.float32)


def shortest_path(costs: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows and columns of the cheapest path from the first to the last entry (dynamic time warping).

    Each step goes to the next row, the next column, or both. costs: shape (rows, columns). Entries of one diagonal do
    not depend on each other, so they are computed together.
    """
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf, np.float32)
    total[0, 0] = 0
    moves = np.zeros((rows + 1, columns + 1), np.int8)
    for diagonal in range(2, rows + columns + 1):
        row = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        column = diagonal - row
        before = np.stack([total[row - 1, column - 1], total[row - 1, column], total[row, column - 1]])
        move = before.argmin(axis=0)
        total[row, column] = costs[row - 1, column - 1] + before[move, np.arange(len(row))]
        moves[row, column] = move
    row, column = rows, columns
    path = []
    while row > 0 and column > 0:
        path.append((row - 1, column - 1))
        move = moves[row, column]
        row, column = row - (move != 2), column - (move != 1)
    ordered = np.array(path[::-1], np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1]
