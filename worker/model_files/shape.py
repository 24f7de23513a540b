"""The shape of a Whisper model and the tensors that follow from it, by the names of OpenAI's implementation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

FRAMES = 1500
"""Frames of the encoder's output for 30 s of audio."""
BINS = 201
"""Frequencies of a mel filter."""
TEXT_LENGTH = 448
"""Positions of the decoder."""
VOCABULARIES = range(51864, 51867)
"""Sizes of Whisper's vocabularies: English only, 99 and 100 languages. Engines derive special tokens from them."""
TEXT_TOKENS = 50256
"""Tokens of text that each vocabulary has at least."""
MEL_BANDS = (80, 128)
MAX_WIDTH, MAX_LAYERS, MAX_HEADS = 4096, 64, 64
"""Limits on what a header may ask for, about three times the largest of OpenAI's models."""


@dataclass(frozen=True, slots=True)
class Header:
    """Sizes of a model, in the order of a ggml file. file_type: ggml's number for the type of its matrices."""

    vocabulary: int
    frames: int
    audio_width: int
    audio_heads: int
    audio_layers: int
    text_length: int
    text_width: int
    text_heads: int
    text_layers: int
    mels: int
    file_type: int

    def integers(self) -> tuple[int, ...]:
        return tuple(asdict(self).values())

    def invalid_fields(self) -> Iterator[str]:
        """Yield the names of the fields that no Whisper model has."""
        valid = {
            "vocabulary": self.vocabulary in VOCABULARIES,
            "frames": self.frames == FRAMES,
            "audio_width": 1 <= self.audio_width <= MAX_WIDTH,
            "audio_heads": _divides(self.audio_heads, self.audio_width),
            "audio_layers": 1 <= self.audio_layers <= MAX_LAYERS,
            "text_length": self.text_length == TEXT_LENGTH,
            "text_width": self.text_width == self.audio_width,
            "text_heads": _divides(self.text_heads, self.text_width),
            "text_layers": 1 <= self.text_layers <= MAX_LAYERS,
            "mels": self.mels in MEL_BANDS,
        }
        yield from (name for name, is_valid in valid.items() if not is_valid)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by its name. Biases of convolutions are columns, as in ggml files."""
        width = self.audio_width
        shapes: dict[str, tuple[int, ...]] = {
            "encoder.positional_embedding": (self.frames, width),
            "encoder.conv1.weight": (width, self.mels, 3),
            "encoder.conv1.bias": (width, 1),
            "encoder.conv2.weight": (width, width, 3),
            "encoder.conv2.bias": (width, 1),
            "decoder.positional_embedding": (self.text_length, width),
            "decoder.token_embedding.weight": (self.vocabulary, width),
        }
        norms = ["encoder.ln_post", "decoder.ln"]
        for side, layers, attentions in (
            ("encoder", self.audio_layers, ("attn",)),
            ("decoder", self.text_layers, ("attn", "cross_attn")),
        ):
            for block in (f"{side}.blocks.{index}" for index in range(layers)):
                norms += [f"{block}.mlp_ln", *(f"{block}.{attention}_ln" for attention in attentions)]
                for attention in attentions:
                    for part in ("query", "key", "value", "out"):
                        shapes[f"{block}.{attention}.{part}.weight"] = (width, width)
                        if part != "key":
                            shapes[f"{block}.{attention}.{part}.bias"] = (width,)
                shapes |= {f"{block}.mlp.0.weight": (4 * width, width), f"{block}.mlp.0.bias": (4 * width,)}
                shapes |= {f"{block}.mlp.2.weight": (width, 4 * width), f"{block}.mlp.2.bias": (width,)}
        return shapes | {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}


def _divides(heads: int, width: int) -> bool:
    return 1 <= heads <= MAX_HEADS and width % heads == 0
