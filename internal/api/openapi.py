"""The OpenAPI page: FastAPI's own, with errors in the media type that they are sent in."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

OURS = "#/components/schemas/Problem"
THEIRS = ("HTTPValidationError", "ValidationError")
PROBLEM = {"application/problem+json": {"schema": {"$ref": OURS}}}


def describe(app: FastAPI) -> None:
    """Replace `app.openapi`; the page is made once."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _corrected(original())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _corrected(spec: dict[str, Any]) -> dict[str, Any]:
    for item in spec["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                if _is_problem(response):
                    response["content"] = PROBLEM
    for name in THEIRS:
        spec["components"]["schemas"].pop(name, None)
    return spec


def _is_problem(response: dict[str, Any]) -> bool:
    reference = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    return str(reference).endswith(("/Problem", *(f"/{name}" for name in THEIRS)))
