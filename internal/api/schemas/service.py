"""Response bodies about the service: health and statistics."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class ModelPullBody(BaseModel):
    """done, total: bytes. error: code of the last failure."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    worker: str
    state: str
    done: int
    total: int | None
    error: str | None


class EngineTrialBody(BaseModel):
    """number, count: the engine that is being tried is the `number`-th of `count`."""

    model_config = ConfigDict(from_attributes=True)

    model: str
    worker: str
    number: int
    count: int


class HealthBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    status: str
    timestamp: datetime
    workers_active: int
    jobs_pending: int
    jobs_processing: int
    models: list[str]
    checks: dict[str, str]
    workers_sick: dict[str, str] = Field(description="Reason by worker, for workers that currently take no work.")
    engines: dict[str, list[str]] = Field(
        description="Engines that the workers use, by model, with version and instruction set."
    )
    model_pulls: list[ModelPullBody] = Field(description="Models that workers are installing or failed to install.")
    engine_trials: list[EngineTrialBody] = Field(
        description="Choices of the engine in progress, for which the model's jobs wait."
    )


class QueuePriorityBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    priority: str
    waiting: int
    running: int
    put_off: int = Field(description="Rows that wait until their owner has less work in progress.")
    oldest_seconds: float = Field(description="Time without progress of the job that has waited longest.")


class QueueBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    priority: str = "0-9"
    pending: int = Field(validation_alias="ready")
    unacked: int
    workers: int = Field(validation_alias="consumers")
    priorities: list[QueuePriorityBody]


class WorkerBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    worker_id: str
    host: str
    version: str
    started_at: datetime
    heartbeat_at: datetime
    slots: int
    models: list[str]
    sick: str | None
    engines: dict[str, str] | None = Field(description="The engine in use, by model.")


class StatsBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    queues: list[QueueBody]
    jobs_by_status: dict[str, int]
    job_success_rate: float
    job_failure_rate: float
    avg_retry_count: float
    chunk_processing_time: float | None
    total_processing_time: float | None
    workers: list[WorkerBody]


class Live(BaseModel):
    status: str = "alive"


class About(BaseModel):
    service: str = "async-stt"
    version: str
    status: str = "running"
    docs: str = "/docs"
