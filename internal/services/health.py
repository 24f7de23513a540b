"""Health of the service: dependencies, workers and unfinished jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog

from core import database_errors
from core.database import Database
from core.domain.job import JobStatus
from core.domain.model_states import PullState
from core.errors import DatabaseUnavailable, InfrastructureError, MachineError
from core.files import check_disk
from core.messaging.port import Broker
from core.storage.port import Storage
from migrations import revisions
from repositories import job_statistics, workers
from repositories.models import Worker

log = structlog.get_logger(__name__)
CHECK_TIMEOUT = 3.0
"""Seconds that a dependency may take to answer before it counts as down."""


@dataclass(frozen=True, slots=True)
class ModelPull:
    """A model that a worker installs, or failed to install. done, total: bytes. error: code of the last failure."""

    name: str
    worker: str
    state: str
    done: int
    total: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class EngineTrial:
    """A choice of the engine for a model, for which its jobs wait: the `number`-th of `count` engines is tried."""

    model: str
    worker: str
    number: int
    count: int


@dataclass(frozen=True, slots=True)
class HealthReport:
    """Result of a health check. checks: `ok` or the fault, by dependency; workers_sick: reason by worker.

    engines: descriptions of the engines that the live workers use, by model. model_pulls: models being installed.
    engine_trials: choices of engines in progress.
    """

    checks: dict[str, str]
    workers_active: int = 0
    jobs_pending: int = 0
    jobs_processing: int = 0
    models: list[str] = field(default_factory=list)
    workers_sick: dict[str, str] = field(default_factory=dict)
    engines: dict[str, list[str]] = field(default_factory=dict)
    model_pulls: list[ModelPull] = field(default_factory=list)
    engine_trials: list[EngineTrial] = field(default_factory=list)
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def healthy(self) -> bool:
        """True if every dependency is up and the live consumers, if any, are not all sick."""
        stuck = self.workers_sick and not self.workers_active
        return not stuck and all(state == "ok" for state in self.checks.values())

    @property
    def status(self) -> str:
        return "healthy" if self.healthy else "unhealthy"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Check of the dependencies and workers. folders: those that this process writes to."""

    database: Database
    broker: Broker
    storage: Storage
    folders: tuple[Path, ...]

    async def run(self) -> HealthReport:
        pending = {
            "database": self._check_database(),
            "broker": _check(self.broker.ping),
            "storage": _check(self.storage.ping),
        }
        if self.folders:
            pending["disk"] = _check(partial(_check_disks, self.folders))
        checks = dict(zip(pending, await asyncio.gather(*pending.values()), strict=True))
        if checks["database"] != "ok":
            return HealthReport(checks)
        try:
            async with self.database.read() as session:
                live = await workers.list_live(session)
                counts = await job_statistics.count_by_status(session, (JobStatus.PENDING, JobStatus.PROCESSING))
        except DatabaseUnavailable as error:
            return HealthReport({**checks, "database": self._database_fault(error)})
        return HealthReport(
            checks=checks,
            workers_active=len(workers.healthy(live)),
            jobs_pending=counts["PENDING"],
            jobs_processing=counts["PROCESSING"],
            models=workers.available_models(live),
            workers_sick={worker.worker_id: worker.sick for worker in live if worker.sick is not None},
            engines=workers.engines_in_use(live),
            model_pulls=_pulls(live),
            engine_trials=_trials(live),
        )

    async def _check_database(self) -> str:
        """Return `ok`, or the fault of the database or its schema, as a text for operators."""
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self.database.ping()
                revision = await revisions.current_revision(self.database)
        except (TimeoutError, DatabaseUnavailable) as error:
            return self._database_fault(error)
        newest, *_ = known = revisions.known_revisions()
        if revision is None:
            return f"down: {database_errors.NO_SCHEMA}"
        if revision not in known:
            return f"down: the schema ({revision}) is newer than this program ({newest}), update the program"
        if revision != newest:
            return f"down: the schema ({revision}) is older than {newest}, run `make migrate`"
        return "ok"

    def _database_fault(self, error: BaseException) -> str:
        cause = database_errors.describe(error)
        if cause == database_errors.SLOW and self.database.exhausted:
            cause = database_errors.EXHAUSTED
        log.warning("the database is unhealthy", action="database_trouble", cause=cause, reason=repr(error.__cause__))
        return f"down: {cause}"


def _pulls(live: Iterable[Worker]) -> list[ModelPull]:
    return [
        ModelPull(state.name, worker, state.state.value, state.done, state.total, state.error)
        for worker, state in workers.model_states(live)
        if state.state is not PullState.INSTALLED
    ]


def _trials(live: Iterable[Worker]) -> list[EngineTrial]:
    states = workers.model_states(live)
    return [EngineTrial(state.name, worker, state.trial, state.trials) for worker, state in states if state.trial]


async def _check_disks(folders: tuple[Path, ...]) -> None:
    """Raises MachineError if a disk of this process is full or cannot be written."""
    for folder in folders:
        await asyncio.to_thread(check_disk, folder)


async def _check(ping: Callable[[], Awaitable[None]]) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            await ping()
    except TimeoutError:
        return "down: no answer"
    except (InfrastructureError, MachineError) as error:
        return f"down: {error.code}"
    return "ok"
