"""Detection of consumers that end without a farewell, for the log."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from core.database import Database
from repositories import workers

log = structlog.get_logger(__name__)
CHECK_INTERVAL = 15.0


@dataclass(slots=True)
class LostConsumers:
    """Log lines about consumers whose heartbeat ended although they have not stopped.

    A consumer is reported if it misses two checks in a row: after an outage of the database, all heartbeats are late.
    """

    database: Database
    _live: set[str] = field(default_factory=set, init=False)
    _missing: set[str] = field(default_factory=set, init=False)

    async def check(self) -> None:
        """Report the consumers that were live two checks ago and not since. Raises DatabaseUnavailable."""
        async with self.database.read() as session:
            live = {worker.worker_id for worker in await workers.list_live(session)}
            lost = await workers.list_by_id(session, self._missing - live) if self._missing - live else []
        for worker in lost:
            log.error(
                "consumer lost: it was killed, or its machine or network is down; its work runs again elsewhere",
                action="consumer_lost",
                worker_id=worker.worker_id,
                host=worker.host,
                pid=worker.pid,
                last_heartbeat=worker.heartbeat_at.isoformat(),
            )
        self._missing, self._live = self._live - live, live
