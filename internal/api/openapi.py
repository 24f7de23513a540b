"""The OpenAPI schema of FastAPI, with errors documented as `application/problem+json`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

PROBLEM_REF = "#/components/schemas/Problem"
FASTAPI_SCHEMAS = ("HTTPValidationError", "ValidationError")
PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": PROBLEM_REF}}}


def document_problems(app: FastAPI) -> None:
    """Replace `app.openapi` by a version that documents errors correctly. Its result is cached."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            spec = original()
            for item in spec["paths"].values():
                for operation in item.values():
                    for response in operation["responses"].values():
                        if _is_problem(response):
                            response["content"] = PROBLEM_CONTENT
            for name in FASTAPI_SCHEMAS:
                spec["components"]["schemas"].pop(name, None)
            app.openapi_schema = spec
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _is_problem(response: dict[str, Any]) -> bool:
    reference = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
    return str(reference).endswith(("/Problem", *(f"/{name}" for name in FASTAPI_SCHEMAS)))
