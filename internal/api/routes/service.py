"""Health, liveness and statistics of the service."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from internal.api.dependencies import HealthCheckDep, Owner, StatisticsDep
from internal.api.routes.responses import refusals
from internal.api.schemas.service import HealthBody, Live, StatsBody
from internal.services.health import HealthReport
from internal.services.statistics import Report

router = APIRouter(tags=["service"])


@router.get(
    "/health", response_model=HealthBody, responses={503: {"model": HealthBody, "description": "A dependency is down"}}
)
async def health(health_check: HealthCheckDep, response: Response) -> HealthReport:
    """Report the health of the service. Container checks use /live, so that a broker outage restarts nothing."""
    report = await health_check.run()
    response.status_code = 200 if report.healthy else 503
    return report


@router.get("/live")
async def live() -> Live:
    return Live()


@router.get("/api/v1/stats", response_model=StatsBody, responses=refusals())
async def stats(statistics: StatisticsDep, _: Owner) -> Report:
    return await statistics.report()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Return the Prometheus metrics of the API: the sum of its worker processes. Embedded, those of everything."""
    text = await run_in_threadpool(generate_latest, request.app.state.metrics)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
