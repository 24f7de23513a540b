"""The bodies of section 1 of the HTTP contract."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

ACCEPTED = "File uploaded successfully. Processing started."


class Accepted(BaseModel):
    job_id: str
    status: str
    message: str = ACCEPTED
    estimated_time_seconds: float | None = Field(description="Measured; null until there is a first measurement.")
    warning: str | None = None


class Status(BaseModel):
    job_id: str
    status: str
    progress: float = Field(description="Per cent of the chunks; 0.0 until they are known.")
    chunks_completed: int
    chunks_total: int | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error_code: str | None
    error_message: str | None
    estimated_time_seconds: float | None


class JobBody(Status):
    """A job with everything that was asked for it."""

    language: str
    detected_language: str | None
    model: str | None
    priority: str
    original_filename: str | None
    duration_seconds: float | None
    request_id: str | None
    metadata: dict[str, Any] | None
    retry_count: int
    expires_at: datetime | None


class JobList(BaseModel):
    jobs: list[JobBody]
    next_cursor: str | None = Field(description="Hand it back as `cursor`; null on the last page.")


class SegmentBody(BaseModel):
    id: int
    start: float
    end: float
    text: str
    confidence: float
    words: list[dict[str, Any]] | None = None


class ResultBody(BaseModel):
    job_id: str
    status: str
    text: str
    word_count: int
    duration_seconds: float
    language: str
    confidence: float
    model: str | None
    segments: list[SegmentBody]
    minio_result_path: str | None
    completed_at: datetime | None
    processing_time: float
    download_url: str
    progress: float


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    job_id: str | None = None
    errors: list[dict[str, Any]] | None = None
