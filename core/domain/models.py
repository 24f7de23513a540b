"""Names of Whisper models: `ggml-{model}.bin`, for English first `ggml-{model}.en.bin`, then quantised variants."""

from __future__ import annotations

from collections.abc import Iterable

DEMO = "demo"
PREFERRED = "medium"
SIZES = ("large-v3", "large-v3-turbo", "large-v2", "large-v1", "medium", "small", "base", "tiny", DEMO)
"""Largest first: the order in which an unset DEFAULT_MODEL looks."""
QUANTISATIONS = ("", "-q8_0", "-q5_1", "-q5_0", "-q4_k", "-q4_1", "-q4_0", "-bf16", "-f16")
"""Order in which variants of one model are tried: the plain file, then the most exact quantisation."""
ALIASES = {"large": "large-v3"}


def file_name(model: str) -> str:
    return f"ggml-{model}.bin"


def model_of_file(name: str) -> str | None:
    """`ggml-base-q5_0.bin` → `base-q5_0`; None for any other file."""
    if name.startswith("ggml-") and name.endswith(".bin"):
        return name[len("ggml-") : -len(".bin")]
    return None


def canonical(model: str) -> str:
    """The name with its alias written out, a quantisation kept: `large-q5_0` → `large-v3-q5_0`."""
    for alias, name in ALIASES.items():
        for quant in QUANTISATIONS:
            if model == alias + quant:
                return name + quant
    return model


def resolve(model: str, language: str, available: Iterable[str]) -> str | None:
    """The available model that `model` means for `language`, or None.

    A full name (`medium-q5_0`) is taken as it is; a family name (`medium`) tries its English file first for English,
    then the plain file, then quantised variants.
    """
    have = set(available)
    name = canonical(model)
    stems = (f"{name}.en", name) if language == "en" else (name,)
    return next((stem + quant for stem in stems for quant in QUANTISATIONS if stem + quant in have), None)


def default_model(language: str, available: Iterable[str]) -> str | None:
    """What an upload without `model` gets when DEFAULT_MODEL is unset: medium, else the largest present."""
    have = set(available)
    for family in (PREFERRED, *SIZES):
        found = resolve(family, language, have)
        if found:
            return found
    return min(have) if have else None


def choose(asked: str | None, language: str, available: Iterable[str], default: str | None = None) -> str | None:
    """The available model of a job: what was asked for, else DEFAULT_MODEL, else medium or the largest; or None.

    Every look-up goes through here: the check of a submit, its estimate, and Prepare, which pins what it finds.
    """
    wanted = asked or default
    return resolve(wanted, language, available) if wanted else default_model(language, available)
