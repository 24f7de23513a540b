"""OpenAPI documentation that FastAPI cannot derive: multipart forms and error responses."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel

from internal.api.schemas.jobs import Problem

Responses = dict[int | str, dict[str, Any]]
TEXT: dict[str, Any] = {"type": "string"}


def form(required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI documentation of a multipart form, which its route parses without FastAPI."""
    fields = {"file": {"type": "string", "format": "binary"}, **properties}
    schema = {"type": "object", "required": required, "properties": fields}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def form_properties(fields: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Return the fields of a JSON body as form fields: booleans, numbers, and text for all other types."""
    kinds = {bool: "boolean", float: "number"}
    return {
        name: {"type": next((kinds[kind] for kind in get_args(field.annotation) if kind in kinds), "string")}
        | {"description": field.description}
        for name, field in fields.model_fields.items()
    }


def refusals(*statuses: int) -> Responses:
    """Document these error statuses, and those common to all routes that depend on the owner."""
    return {status: {"model": Problem} for status in sorted({401, 403, 429, 500, 503, *statuses})}
