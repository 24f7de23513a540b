"""What routes ask for."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from internal.bootstrap import Parts
from internal.services.estimates import Estimator

LOCAL = "local"
"""The owner of every job while no keys are configured."""


def get_parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


def get_estimator(request: Request) -> Estimator:
    estimator: Estimator = request.app.state.estimator
    return estimator


def get_owner() -> str:
    return LOCAL


PartsOf = Annotated[Parts, Depends(get_parts)]
EstimatorOf = Annotated[Estimator, Depends(get_estimator)]
Owner = Annotated[str, Depends(get_owner)]
