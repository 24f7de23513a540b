"""The bodies of sections 2 and 3 of the HTTP contract that start a job."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from internal.services.url_submissions import REQUEST_ID


class Wanted(BaseModel):
    """What every submit may carry."""

    language: str | None = Field(None, description="`en`, `vi` or `auto`")
    model: str | None = Field(None, description="one that GET /health lists")
    priority: str | None = Field(None, description="`high`, `normal` or `low`")
    callback_url: str | None = Field(None, description="called when the job has ended")
    metadata: dict[str, Any] | None = Field(None, description="comes back as it is")
    prompt: str | None = Field(None, description="names and words to expect")
    words: bool | None = Field(None, description="also tell when each word was said")
    temperature: float | None = Field(None, description="0 to 1")


class UrlSubmit(Wanted):
    request_id: str = Field(min_length=1, max_length=255, pattern=rf"^{REQUEST_ID.pattern}$")
    media_url: str = Field(min_length=1, description="http, https, or minio://bucket/inbox/OWNER/…")


class Polled(BaseModel):
    """The shape that polling clients know; more is there once the job has ended."""

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


class LinkWanted(Wanted):
    filename: str = Field(min_length=1, max_length=1000, description="its ending says the format")


class LinkBody(BaseModel):
    job_id: str
    upload_url: str
    method: str = "PUT"
    expires_at: datetime
