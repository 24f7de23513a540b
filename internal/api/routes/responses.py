"""Documentation that FastAPI cannot derive: multipart forms and error responses."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from internal.api.schemas.jobs import Problem

Responses = dict[int | str, dict[str, Any]]
TEXT: dict[str, Any] = {"type": "string"}


def form_properties(schema: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return a schema's fields as form fields; objects are sent as their JSON text."""
    properties: dict[str, dict[str, Any]] = {}
    for name, field in schema.model_json_schema()["properties"].items():
        kind = field["anyOf"][0]["type"]
        properties[name] = {"type": "string" if kind == "object" else kind, "description": field["description"]}
    return properties


def form(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    """Return a multipart form for the OpenAPI page. The routes read theirs as it arrives, without FastAPI."""
    fields = {"file": {"type": "string", "format": "binary"}, **properties}
    schema = {"type": "object", "required": required, "properties": fields}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def refusals(*statuses: int) -> Responses:
    """Document these statuses and those of every route that depends on the owner."""
    return {status: {"model": Problem} for status in sorted({401, 403, 429, 500, 503, *statuses})}
