"""Health, life, figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from internal.api.dependencies import ApplicationOf, Owner
from internal.api.routes.responses import refusals
from internal.api.schemas.service import About, HealthBody, Live, StatsBody
from internal.bootstrap import VERSION
from internal.services import stats

router = APIRouter(tags=["service"])


@router.get("/health", responses={503: {"model": HealthBody, "description": "A part is down"}})
async def health(parts: ApplicationOf, response: Response) -> HealthBody:
    """For people and monitors. Container checks use /live, so that a broker's outage restarts nothing."""
    state = await stats.health(parts)
    response.status_code = 200 if state.healthy else 503
    return HealthBody(
        status="healthy" if state.healthy else "unhealthy",
        timestamp=datetime.now(UTC),
        workers_active=state.workers_active,
        jobs_pending=state.jobs_pending,
        jobs_processing=state.jobs_processing,
        models=state.models,
        checks=state.checks,
        workers_sick=state.workers_sick,
    )


@router.get("/live")
async def live() -> Live:
    return Live()


@router.get("/api/v1/stats", responses=refusals())
async def figures(parts: ApplicationOf, _: Owner) -> StatsBody:
    found: dict[str, Any] = await stats.stats(parts)
    return StatsBody(**found)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(parts: ApplicationOf) -> Response:
    """Prometheus: this process's own figures, and how many items of housekeeping are parked."""
    await stats.count_parked(parts)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/")
async def about() -> About:
    return About(version=VERSION)
