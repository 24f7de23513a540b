"""Names of models to install: those of the table, and `OWNER/REPO[@REVISION]:FILE` for any other file of a hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from core.domain.models import canonical
from core.errors_models import ModelNameError
from worker.model_store import registry

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(rf"({_PART})/({_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,127}}))?:((?:{_PART}/){{0,7}}{_PART})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""A model's own name: what a submit may name, without a leading dot or hyphen."""
DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A file on a hub. name: the model's name here. size: bytes or None. checksums: hex digits by algorithm."""

    name: str
    repository: str
    revision: str
    file: str
    size: int | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def local_file(self) -> str:
        return f"ggml-{self.name}.bin"

    def __str__(self) -> str:
        revision = "" if self.revision == DEFAULT_REVISION else f"@{self.revision}"
        return f"{self.repository}{revision}:{self.file}"


def parse(text: str, name: str | None = None) -> ModelReference:
    """Return the file that `text` stands for. name: the model's name here; None: derived from the file's.

    A file from elsewhere whose name here is in the table has to have the checksum of the table. Raises ModelNameError.
    """
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return _listed(text, name)
    owner, repository, revision, file = match.groups()
    if ".." in text:
        raise ModelNameError("{value} is not OWNER/REPO:FILE.", value=shown(text))
    local = _checked(name) if name else _checked(_derived(repository, file.rpartition("/")[2]))
    entry = registry.find(local)
    return ModelReference(
        name=local,
        repository=f"{owner}/{repository}",
        revision=revision or DEFAULT_REVISION,
        file=file,
        size=entry.size if entry else None,
        checksums=entry.checksums if entry else {},
    )


def _listed(text: str, name: str | None) -> ModelReference:
    entry = registry.find(text)
    recipe = registry.recipes().get(text)
    if recipe is not None:
        raise ModelNameError(
            "{value} is not published as a ggml file: use `stt models import {repository}`.",
            value=text,
            repository=recipe.repository,
        )
    if entry is None:
        raise ModelNameError(
            "{value} is neither a name of `stt models list` nor OWNER/REPO:FILE.",
            value=shown(text),
        )
    if name not in (None, entry.name):
        raise ModelNameError("The model {value} of the table keeps its name.", value=entry.name)
    return ModelReference(entry.name, entry.repository, entry.revision, entry.file, entry.size, entry.checksums)


def _derived(repository: str, file: str) -> str:
    """Return the model's name: that of `ggml-NAME.bin`; for `ggml-model-q5_0.bin` the repository's and `-q5_0`."""
    stem = file.removesuffix(".bin").removeprefix("ggml-")
    return repository.lower() + stem.removeprefix("model") if stem.split("-")[0] == "model" else stem


def _checked(name: str) -> str:
    name = canonical(name)
    if not is_name(name):
        raise ModelNameError("{value} is not a model name.", value=shown(name))
    return name


def is_name(text: str) -> bool:
    """Return True for a name that a model may have, which is safe in a file name and on a terminal."""
    return _NAME.fullmatch(text) is not None and ".." not in text


def shown(text: str) -> str:
    """Return text of a user for a message: short, in quotes, and without control characters."""
    return ascii(text[:60])
