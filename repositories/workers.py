"""Workers: the live processes and the model files they have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from core.domain.model_states import ModelState
from repositories.models import Worker
from repositories.state_machine import apply

HEARTBEAT_INTERVAL = 10.0
"""Seconds between two heartbeats."""
LIVE_SECONDS = 35.0
"""Seconds after its last heartbeat for which a worker counts as live: three missed heartbeats and a margin."""
RETENTION = 86_400.0
"""Seconds after its last heartbeat until a worker's row is deleted."""
CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Content of a heartbeat. slots: number of chunks that the process transcribes at once.

    checksums: known SHA-256 (hex) of the model files, by name; None: unknown. sick: the reason for which the process
    takes no work; None: it takes work. engines: description of the engine in use, by model name. model_states: see
    `core/domain/model_states.py`.
    """

    worker_id: str
    kind: str
    host: str
    pid: int
    version: str
    slots: int
    models: tuple[str, ...]
    checksums: dict[str, list[str]] | None = None
    sick: str | None = None
    engines: dict[str, str] = field(default_factory=dict)
    model_states: tuple[dict[str, Any], ...] = ()


async def heartbeat(session: AsyncSession, info: WorkerInfo) -> Worker:
    """Insert or update the worker's row and return it."""
    values = {
        "slots": info.slots,
        "models": list(info.models),
        "checksums": info.checksums,
        "sick": info.sick,
        "engines": info.engines,
        "model_states": list(info.model_states),
        "heartbeat_at": after(),
    }
    same_worker = Worker.worker_id == info.worker_id
    renewed = await apply(session, update(Worker).where(same_worker).values(**values).returning(Worker.worker_id))
    if renewed.first() is None:
        await session.execute(
            insert(Worker).values(
                worker_id=info.worker_id,
                kind=info.kind,
                host=info.host,
                pid=info.pid,
                version=info.version,
                started_at=after(),
                **values,
            )
        )
    return (await session.execute(select(Worker).where(same_worker))).scalar_one()


async def remove(session: AsyncSession, worker_id: str) -> None:
    """Remove the row of a worker that stops."""
    await apply(session, delete(Worker).where(Worker.worker_id == worker_id))


async def delete_stale(session: AsyncSession, older_than: float = RETENTION) -> None:
    """Delete workers whose last heartbeat is over `older_than` seconds ago."""
    await apply(session, delete(Worker).where(Worker.heartbeat_at < after(-older_than)))


async def list_live(session: AsyncSession, kind: str = CONSUMER) -> list[Worker]:
    """Return the live workers of a kind, ordered by id."""
    statement = select(Worker).where(Worker.kind == kind, Worker.heartbeat_at >= after(-LIVE_SECONDS))
    return list((await session.execute(statement.order_by(Worker.worker_id))).scalars())


async def list_by_id(session: AsyncSession, worker_ids: Iterable[str]) -> list[Worker]:
    """Return the workers of these ids, live or not, that have not removed their row."""
    statement = select(Worker).where(Worker.worker_id.in_(list(worker_ids))).order_by(Worker.worker_id)
    return list((await session.execute(statement)).scalars())


def healthy(workers: Iterable[Worker]) -> list[Worker]:
    """Return the workers that take work."""
    return [worker for worker in workers if worker.sick is None]


def model_states(workers: Iterable[Worker]) -> list[tuple[str, ModelState]]:
    """Return worker and state of each model that the workers have, are installing, or failed to install."""
    return [(worker.worker_id, ModelState.from_json(item)) for worker in workers for item in worker.model_states or ()]


def available_models(workers: Iterable[Worker]) -> list[str]:
    """Return the names of all models that the workers have, sorted."""
    return sorted({model for worker in workers for model in worker.models})


def engines_in_use(workers: Iterable[Worker]) -> dict[str, list[str]]:
    """Return the descriptions of the engines that the workers use, sorted, by model name."""
    found: dict[str, set[str]] = {}
    for worker in workers:
        for model, engine in (worker.engines or {}).items():
            found.setdefault(model, set()).add(engine)
    return {model: sorted(found[model]) for model in sorted(found)}
