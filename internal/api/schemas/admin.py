"""Bodies of the operator's routes."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class MeBody(BaseModel):
    owner: str
    author: str = Field(description="Name of the key, with which corrections are signed.")
    admin: bool = Field(description="True for the operator, who may use the routes under /api/v1/admin.")


class DeadLetterBody(BaseModel):
    """A dead letter. job_id: null if the message cannot be decoded."""

    job_id: str | None
    replayable: bool
    code: str
    message: str
    attempts: int | None
    chunk: int | None
    first_failure: str | None
    last_failure: str | None


class DeadLettersBody(BaseModel):
    dead_letters: list[DeadLetterBody] = Field(description="Oldest first.")
    total: int


class DeadLetterSelection(BaseModel):
    """One job's dead letters, or all of them."""

    job_id: str | None = Field(None, max_length=36)
    all: bool = False


class ReplayedBody(BaseModel):
    reopened: int
    stale: int = Field(description="Dead letters that no longer reopen a job. They are removed.")


class PurgedBody(BaseModel):
    removed: int


class KeyBody(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(from_attributes=True)

    key_id: str
    name: str | None
    owner: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Recorded once a minute at most.")


class KeysBody(BaseModel):
    keys: list[KeyBody]


class FiguresBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    start: datetime
    completed: int
    failed: int
    mean_seconds: float | None = Field(description="From the start of a job to its end.")
    real_time_factor: float | None = Field(description="Seconds of work per second of audio.")


class HourBody(BaseModel):
    bucket_seconds: int
    buckets: list[FiguresBody] = Field(description="Oldest first; the last one is not over yet.")
