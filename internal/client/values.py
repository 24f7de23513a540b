"""Values that the client takes and returns. Fields that a newer service adds are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypedDict

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Options(TypedDict, total=False):
    """Options of a submit; see `docs/api.md`. Options left out, or None, get the service's defaults."""

    language: str | None
    model: str | None
    priority: str | None
    prompt: str | None
    words: bool | None
    temperature: float | None
    callback_url: str | None
    metadata: Mapping[str, Any] | None


class _Body:
    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Self:
        """Return the value of a JSON object; missing fields are None."""
        return cls(**{field.name: body.get(field.name) for field in fields(cls)})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Submission(_Body):
    """An accepted job. estimated_time_seconds: None before the first measurement."""

    job_id: str
    status: str
    warning: str | None = None
    estimated_time_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Job(_Body):
    """A job. progress: percentage of finished chunks; times: ISO 8601 in UTC; durations: seconds."""

    job_id: str
    status: str
    progress: float = 0.0
    chunks_completed: int = 0
    chunks_total: int | None = None
    created_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    estimated_time_seconds: float | None = None
    language: str | None = None
    detected_language: str | None = None
    model: str | None = None
    priority: str | None = None
    original_filename: str | None = None
    duration_seconds: float | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def completed(self) -> bool:
        return self.status == "COMPLETED"


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a job. kind: progress, segment, completed, failed or cancelled; data: its JSON object.

    event_id: continues the stream after this event; None for most segments.
    """

    kind: str
    data: Mapping[str, Any]
    event_id: str | None = None

    @property
    def last(self) -> bool:
        return self.kind in ("completed", "failed", "cancelled")
