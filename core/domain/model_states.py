"""The state of a model on one consumer, as its heartbeat announces it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class PullState(StrEnum):
    INSTALLED = "installed"
    QUEUED = "queued"
    """Waits for another download."""
    PULLING = "pulling"
    RETRYING = "retrying"
    """The last attempt failed for a reason that may pass; the next one follows."""
    FAILED = "failed"
    """Somebody has to do something, which the error names. It is tried again now and then."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model on one consumer.

    done, total: bytes; total None if unknown. rate: bytes per second. configured: named by MODELS. removable: written
    by a pull. error, detail, values: code, template and values of the last error, see `core/failure_text.py`. trial,
    trials: the engine that is being tried with this model is the `trial`-th of `trials`; 0 if none is.
    """

    name: str
    state: PullState
    done: int = 0
    total: int | None = None
    rate: float = 0.0
    source: str = ""
    configured: bool = False
    removable: bool = False
    error: str | None = None
    detail: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    trial: int = 0
    trials: int = 0

    @property
    def arriving(self) -> bool:
        """True while a download makes progress, so that jobs wait for it without a limit."""
        return self.state in (PullState.QUEUED, PullState.PULLING)

    @property
    def pending(self) -> bool:
        """True if the model is expected, so that jobs may name it."""
        return self.arriving or self.state is PullState.RETRYING

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        return {
            key: value for key, value in asdict(self).items() if key == "name" or value not in (0, "", None, False, {})
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelState:
        """Return the state; fields of a newer version are ignored."""
        known = {key: item for key, item in value.items() if key in cls.__dataclass_fields__}
        return cls(**known | {"state": PullState(value["state"])})


def pending_names(states: Iterable[ModelState]) -> list[str]:
    """Return the names of the models that are expected, sorted."""
    return sorted({state.name for state in states if state.pending})
