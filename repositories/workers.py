"""Who is alive, what models they have: that is how the API knows which models exist and how many work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from core.database import after
from repositories.models import Worker

HEARTBEAT = 10.0
"""Seconds between two signs of life."""
ALIVE = 35.0
"""Seconds after its last sign of life that a worker counts as gone: three missed and a little."""
FORGET = 86_400.0
CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class Presence:
    """One process, as it announces itself; slots: how many chunks it transcribes at once.

    checksums: SHA-256 of the model files by name, as far as they are known; None: unknown. sick: why it takes no work
    at present; None: it does.
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


async def announce(session: AsyncSession, who: Presence) -> Worker:
    """A sign of life: insert or renew. Returns the row."""
    values = {
        "slots": who.slots,
        "models": list(who.models),
        "checksums": who.checksums,
        "sick": who.sick,
        "heartbeat_at": after(),
    }
    renewed = await session.execute(
        update(Worker)
        .where(Worker.worker_id == who.worker_id)
        .values(**values)
        .returning(Worker.worker_id)
        .execution_options(synchronize_session=False)
    )
    if renewed.first() is None:
        await session.execute(
            insert(Worker).values(
                worker_id=who.worker_id,
                kind=who.kind,
                host=who.host,
                pid=who.pid,
                version=who.version,
                started_at=after(),
                **values,
            )
        )
    return (await session.execute(select(Worker).where(Worker.worker_id == who.worker_id))).scalar_one()


async def leave(session: AsyncSession, worker_id: str) -> None:
    await session.execute(delete(Worker).where(Worker.worker_id == worker_id))


async def forget_gone(session: AsyncSession, older_than: float = FORGET) -> None:
    await session.execute(delete(Worker).where(Worker.heartbeat_at < after(-older_than)))


async def alive(session: AsyncSession, kind: str = CONSUMER) -> list[Worker]:
    statement = select(Worker).where(Worker.kind == kind, Worker.heartbeat_at >= after(-ALIVE))
    return list((await session.execute(statement.order_by(Worker.worker_id))).scalars())


def well(of: Iterable[Worker]) -> list[Worker]:
    """Those that take work."""
    return [worker for worker in of if worker.sick is None]


def models(of: Iterable[Worker]) -> list[str]:
    """Every model that one of these has, sorted."""
    return sorted({model for worker in of for model in worker.models})
