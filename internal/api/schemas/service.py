"""The bodies of section 6 of the HTTP contract."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class HealthBody(BaseModel):
    status: str
    timestamp: datetime
    workers_active: int
    jobs_pending: int
    jobs_processing: int
    models: list[str]
    checks: dict[str, str]
    workers_sick: dict[str, str] = Field(description="Workers that take no work at present, and why.")


class QueueBody(BaseModel):
    name: str
    priority: str
    pending: int
    unacked: int
    workers: int


class StatsBody(BaseModel):
    queues: list[QueueBody]
    jobs_by_status: dict[str, int]
    job_success_rate: float
    job_failure_rate: float
    avg_retry_count: float
    chunk_processing_time: float | None
    total_processing_time: float | None
    workers: list[dict[str, Any]]


class Live(BaseModel):
    status: str = "alive"


class About(BaseModel):
    service: str = "async-stt"
    version: str
    status: str = "running"
    docs: str = "/docs"
