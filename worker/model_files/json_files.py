"""JSON files of model folders, and the tokens in them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worker.model_files.shape import TEXT_TOKENS
from worker.model_files.weights import Damage

MAX_BYTES = 64_000_000
"""Largest file that is read besides weights; a tokenizer has 4 MB."""


def read_part(path: Path) -> bytes:
    """Return the content of a small file of a model. Raises Damage if it is no file or too long, OSError."""
    if path.exists() and not path.is_file():  # a pipe would block, a device never end
        raise Damage(path.name)
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Damage(path.name)
    return data


def read_json(path: Path, kind: type = dict) -> Any:
    """Return the content of a JSON file. Raises Damage if it is not of this kind, OSError."""
    try:
        value = json.loads(read_part(path))
    except (ValueError, RecursionError) as error:
        raise Damage(path.name) from error
    if not isinstance(value, kind):
        raise Damage(path.name)
    return value


def text_tokens(names: Iterable[Any]) -> list[bytes]:
    """Return the bytes of the text tokens, those before the first special one. names: by number, as in GPT-2.

    Raises Damage.
    """
    byte_of = {ord(letter): byte for byte, letter in enumerate(byte_letters())}
    tokens: list[bytes] = []
    for name in names:
        if not isinstance(name, str):
            raise Damage("vocabulary")
        if name.startswith("<|") and len(tokens) >= TEXT_TOKENS:
            break
        try:
            tokens.append(name.translate(byte_of).encode("latin-1"))
        except UnicodeEncodeError as error:
            raise Damage("vocabulary") from error
    if len(tokens) < TEXT_TOKENS:
        raise Damage("vocabulary")
    return tokens


def byte_letters() -> list[str]:
    """Return a visible letter for each byte: itself where it has one, as in GPT-2's vocabulary."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in visible]
    return [chr(byte if byte in visible else 0x100 + others.index(byte)) for byte in range(256)]


def alignment_heads(value: Any, layers: int, heads: int) -> list[tuple[int, int]] | None:
    """Return (layer, head) pairs of a configuration; None if it has none that this model can have."""
    if not isinstance(value, list) or not value:
        return None
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)]
    known = [(layer, head) for layer, head in pairs if 0 <= layer < layers and 0 <= head < heads]
    return known if len(known) == len(value) else None
