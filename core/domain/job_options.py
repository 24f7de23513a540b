"""Options of a job: those of its submit, and those that Prepare pins for its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class MergeMethod(StrEnum):
    """Treatment of the words that two overlapping chunks share."""

    SMART = "smart"
    SIMPLE = "simple"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options of one job, stored as JSON in `jobs.options`.

    Set by the submit: prompt: vocabulary to expect; words: True for word times; temperature: 0..1.
    Set by Prepare, so that every Finalise writes the same bytes: the SHA-256 of the model file, the chunking strategy
    and the merge method. unknown: keys written by another version, which are kept.
    """

    prompt: str = ""
    words: bool = False
    temperature: float = 0.0
    file_sha256: str = ""
    chunk_strategy: str = ""
    merge_method: MergeMethod = MergeMethod.SMART
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobOptions:
        """Read stored options. Missing and malformed values get their defaults; unknown keys are kept."""
        known: dict[str, Any] = {}
        for name, kind in _TYPES.items():
            if data.get(name) is not None:
                try:
                    known[name] = kind(data[name])
                except (TypeError, ValueError):
                    continue
        return cls(**known, unknown={name: value for name, value in data.items() if name not in _TYPES})

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain data. Empty options are omitted."""
        return {**self.unknown, **{name: value for name in _TYPES if (value := getattr(self, name))}}


_TYPES: dict[str, type] = {
    option.name: type(option.default) for option in fields(JobOptions) if option.name != "unknown"
}
