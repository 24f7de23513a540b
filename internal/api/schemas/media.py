"""Response bodies about recordings."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field


class MediaTokenBody(BaseModel):
    """An address for a player."""

    url: str = Field(description="Path of the recording with the token, for the `src` of an audio or video element.")
    token: str
    expires_at: datetime
    content_type: str = Field(description="Begins with `video/` if the recording may have pictures.")
    size: int = Field(description="Bytes of the recording.")


class PeaksBody(BaseModel):
    """Loudness of a recording over time."""

    duration_seconds: float
    seconds_per_peak: float
    peaks: str = Field(
        description="Base64 of one byte per peak: 0 for -60 dBFS or less, 255 for 0 dBFS, at most 16,384 bytes. "
        "Each is the level of the loudest 10 ms of its stretch."
    )
