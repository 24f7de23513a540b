"""Refusals that routes document: what every one may answer, and more."""

from __future__ import annotations

from typing import Any

from internal.api.schemas.jobs import Problem

Responses = dict[int | str, dict[str, Any]]


def refusals(*statuses: int) -> Responses:
    """These, and what any route that asks for the owner may answer."""
    return {status: {"model": Problem} for status in sorted({401, 429, 500, 503, *statuses})}
