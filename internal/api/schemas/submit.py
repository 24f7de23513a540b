"""Bodies of requests that submit a job as JSON, and their responses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from core.domain.job import JobStatus
from core.errors import JobCancelledError
from core.texts import translate
from internal.services.job_views import JobView
from internal.services.url_submissions import REQUEST_ID

URL_JOB_MESSAGES = {
    JobStatus.PROCESSING: "Transcription in progress",
    JobStatus.COMPLETED: "Transcription completed successfully",
    JobStatus.FAILED: "Transcription failed",
}


class SubmitFields(BaseModel):
    """Options common to every way to submit."""

    language: str | None = Field(None, description="`en`, `vi` or `auto`")
    model: str | None = Field(None, description="one that GET /health lists")
    priority: str | None = Field(None, description="`high`, `normal` or `low`")
    callback_url: str | None = Field(None, description="called when the job has ended")
    metadata: dict[str, Any] | None = Field(None, description="returned unchanged")
    prompt: str | None = Field(None, description="names and words to expect")
    words: bool | None = Field(None, description="include the times of words")
    temperature: float | None = Field(None, description="0 to 1")


class UrlSubmit(SubmitFields):
    request_id: str = Field(min_length=1, max_length=255, pattern=rf"^{REQUEST_ID.pattern}$")
    media_url: str = Field(min_length=1, description="http, https, or minio://bucket/inbox/OWNER/…")


class UrlJob(BaseModel):
    """A job by URL. Text and figures are set once it is COMPLETED, the error once it is FAILED."""

    request_id: str
    status: str = Field(description="PROCESSING, COMPLETED or FAILED")
    message: str
    job_id: str
    warning: str | None = None
    transcription: str | None = None
    duration: float | None = None
    confidence: float | None = None
    processing_time: float | None = None
    error: str | None = None
    error_code: str | None = None

    @classmethod
    def of(cls, job: JobView, language: str) -> UrlJob:
        """Return the body for a job; CANCELLED is shown as FAILED.

        The figures of a COMPLETED job are never null, because clients format them.
        """
        status = JobStatus(job.status)
        if not status.terminal:
            status = JobStatus.PROCESSING
        elif status is JobStatus.CANCELLED:
            status = JobStatus.FAILED
        body = cls(
            request_id=job.request_id or "",
            status=status,
            message=translate(URL_JOB_MESSAGES[status], language),
            job_id=job.job_id,
        )
        if status is JobStatus.COMPLETED:
            body.transcription = job.transcription_text or ""
            body.duration = round(job.audio_duration_seconds or 0.0, 3)
            body.confidence = job.confidence or 0.0
            body.processing_time = job.processing_seconds or 0.0
        elif status is JobStatus.FAILED:
            body.error = job.failure or ""
            body.error_code = job.error_code or JobCancelledError.code
        return body


class UploadLinkSubmit(SubmitFields):
    filename: str = Field(min_length=1, max_length=1000, description="its extension determines the format")


class UploadLinkBody(BaseModel):
    job_id: str
    upload_url: str
    method: str = "PUT"
    expires_at: datetime
