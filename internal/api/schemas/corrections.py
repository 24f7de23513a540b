"""Bodies of corrections."""

from __future__ import annotations

from pydantic import BaseModel, Field


class CorrectionRequest(BaseModel):
    """The corrected text of a segment; an empty one if nothing was said."""

    text: str = Field(max_length=4000, description="At most 2,000 characters after spaces are joined.")
