"""Response bodies of jobs and their results."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field

from core.domain.json_values import showable

UPLOAD_ACCEPTED = "File uploaded successfully. Processing started."


class UploadAccepted(BaseModel):
    job_id: str
    status: str
    message: str = UPLOAD_ACCEPTED
    estimated_time_seconds: float | None = Field(description="Based on measurements; null before the first one.")
    warning: str | None = None


class JobStatusBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    job_id: str
    status: str
    progress: float = Field(description="Percentage of finished chunks; 0.0 until the chunks are known.")
    chunks_completed: int
    chunks_total: int | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error_code: str | None
    error_message: str | None
    estimated_time_seconds: float | None


class JobBody(JobStatusBody):
    """A job with all its options."""

    language: str
    detected_language: str | None
    model: str | None
    priority: str
    original_filename: str | None
    duration_seconds: float | None = Field(validation_alias="audio_duration_seconds")
    request_id: str | None
    metadata: Annotated[dict[str, Any] | None, BeforeValidator(showable)] = Field(validation_alias="client_metadata")
    retry_count: int
    expires_at: datetime | None
    corrections: int = Field(description="Number of segments with a correction.")


class JobList(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    jobs: list[JobBody]
    next_cursor: str | None = Field(description="Value of `cursor` for the next page; null on the last page.")


class WordBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    word: str
    start: float
    end: float
    probability: float


class CorrectionBody(BaseModel):
    """A correction of a segment's text by a person."""

    model_config = ConfigDict(from_attributes=True)

    machine_text: str
    author: str = Field(description="Name of the key that was used.")
    corrected_at: datetime


class SegmentBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    start: float
    end: float
    text: str
    confidence: float
    words: Annotated[list[WordBody] | None, BeforeValidator(lambda words: words or None)] = None
    version: int = Field(0, description="Number of the segment's last change, for `If-Match`; 0: never changed.")
    correction: CorrectionBody | None = None


class ResultBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    job_id: str
    status: str
    text: str
    duration_seconds: float
    language: str
    confidence: float
    model: str | None
    segments: list[SegmentBody]
    minio_result_path: str | None
    completed_at: datetime | None
    processing_time: float
    progress: float

    @computed_field
    def word_count(self) -> int:
        return len(self.text.split())

    @computed_field
    def download_url(self) -> str:
        return f"/api/v1/download/{self.job_id}"


class Problem(BaseModel):
    """An error in the format of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    job_id: str | None = None
    errors: list[dict[str, Any]] | None = None
