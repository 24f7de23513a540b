"""The models that live workers have."""

from __future__ import annotations

from dataclasses import dataclass

from core.database import Database
from repositories import workers


@dataclass(frozen=True, slots=True)
class LiveModels:
    """Models of the live workers. workers: their number; since: start of the oldest in seconds since 1970, or 0."""

    names: list[str]
    workers: int
    since: int


@dataclass(frozen=True, slots=True)
class Models:
    """The models that jobs can use now."""

    database: Database

    async def live(self) -> LiveModels:
        async with self.database.read() as session:
            live = await workers.list_live(session)
        since = min((int(worker.started_at.timestamp()) for worker in live), default=0)
        return LiveModels(workers.available_models(live), len(live), since)
