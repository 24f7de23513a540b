"""JSON: the result file, unchanged."""

from __future__ import annotations

from core.domain.result import Result

FORMAT = "json"
MEDIA_TYPE = "application/json"


def export(result: Result) -> bytes:
    return result.to_bytes()
