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
