"""The table of models, `registry.toml`, which is read once."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.domain.models import canonical

FILE = Path(__file__).with_name("registry.toml")
MULTILINGUAL, ENGLISH = "multilingual", "en"
WHISPER, DETECTOR = "whisper", "detector"
MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the table.

    size: bytes. checksums: hex digits by algorithm. memory: estimated megabytes of one engine process. kind: `whisper`,
    or `detector` for a voice detector, which the service does not use.
    """

    name: str
    repository: str
    revision: str
    size: int
    checksums: dict[str, str]
    licence: str
    languages: str
    memory: int
    speed: str
    kind: str = WHISPER

    @property
    def file(self) -> str:
        return f"ggml-{self.name}.bin"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A fine-tune that `stt models import` converts. word_error_rates: percent, see `registry.toml`."""

    name: str
    repository: str
    format: str
    family: str
    languages: tuple[str, ...]
    licence: str
    word_error_rates: tuple[float, ...]


@functools.cache
def entries() -> dict[str, ModelEntry]:
    """Return the models of the table by name, smallest family first."""
    data = _data()
    models = [
        _whisper(data["whisper"], family, item)
        for family in data["whisper"]["families"].values()
        for item in family["files"]
    ]
    models += [_detector(data["detectors"], item) for item in data["detectors"]["files"]]
    return {model.name: model for model in models}


@functools.cache
def recipes() -> dict[str, Recipe]:
    """Return the recipes by name."""
    return {
        item["name"]: Recipe(
            name=item["name"],
            repository=item["repository"],
            format=item["format"],
            family=item["family"],
            languages=tuple(item["languages"]),
            licence=item["licence"],
            word_error_rates=tuple(item["word_error_rates"]),
        )
        for item in _data()["recipes"]
    }


def find(name: str) -> ModelEntry | None:
    """Return the model with this name or alias (`large` means `large-v3`), or None."""
    return entries().get(canonical(name))


def _data() -> dict[str, Any]:
    return tomllib.loads(FILE.read_text("utf-8"))


def _whisper(table: dict[str, Any], family: dict[str, Any], item: dict[str, Any]) -> ModelEntry:
    return ModelEntry(
        name=item["name"],
        repository=table["repository"],
        revision=table["revision"],
        size=item["size"],
        checksums=_checksums(item),
        licence=table["licence"],
        languages=ENGLISH if ".en" in item["name"] else MULTILINGUAL,
        memory=item["size"] // MEGABYTE + family["buffers"],
        speed=family["speed"],
    )


def _detector(table: dict[str, Any], item: dict[str, Any]) -> ModelEntry:
    return ModelEntry(
        name=item["name"],
        repository=table["repository"],
        revision=table["revision"],
        size=item["size"],
        checksums=_checksums(item),
        licence=table["licence"],
        languages=MULTILINGUAL,
        memory=0,
        speed="",
        kind=DETECTOR,
    )


def _checksums(item: dict[str, Any]) -> dict[str, str]:
    return {algorithm: item[algorithm] for algorithm in ("sha256", "sha1") if algorithm in item}
