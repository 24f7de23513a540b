"""What routes document by hand: forms, and the refusals that every one may answer, and more."""

from __future__ import annotations

from typing import Any

from internal.api.schemas.jobs import Problem

Responses = dict[int | str, dict[str, Any]]
TEXT: dict[str, Any] = {"type": "string"}


def form(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    """A multipart form as the OpenAPI page shows it: our routes read theirs as it arrives, out of FastAPI's sight."""
    fields = {"file": {"type": "string", "format": "binary"}, **properties}
    schema = {"type": "object", "required": required, "properties": fields}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def refusals(*statuses: int) -> Responses:
    """These, and what any route that asks for the owner may answer."""
    return {status: {"model": Problem} for status in sorted({401, 403, 429, 500, 503, *statuses})}
