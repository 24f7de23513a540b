"""The scheduler's log names consumers that ended without a farewell."""

from __future__ import annotations

from sqlalchemy import update
from structlog.testing import capture_logs

from core.database import Database, after
from internal.scheduler.lost_consumers import LostConsumers
from repositories import workers
from repositories.models import Worker


async def announce(database: Database, name: str, seconds_ago: float = 0) -> None:
    async with database.write() as session:
        await workers.heartbeat(session, workers.WorkerInfo(name, workers.CONSUMER, "host-7", 42, "1", 1, ()))
        row = update(Worker).where(Worker.worker_id == name)
        await session.execute(row.values(heartbeat_at=after(-seconds_ago)))


async def check(lost_consumers: LostConsumers) -> list[str]:
    with capture_logs() as logs:
        await lost_consumers.check()
    return [f"{line['worker_id']} {line['host']} {line['pid']}" for line in logs if line["action"] == "consumer_lost"]


async def test_a_consumer_that_misses_two_checks_is_named_once(database: Database) -> None:
    lost_consumers = LostConsumers(database)
    await announce(database, "a")
    await announce(database, "b")
    assert await check(lost_consumers) == []
    await announce(database, "a", workers.LIVE_SECONDS + 1)
    assert await check(lost_consumers) == []
    assert await check(lost_consumers) == ["a host-7 42"]
    assert await check(lost_consumers) == []


async def test_a_consumer_that_stops_is_not_lost(database: Database) -> None:
    lost_consumers = LostConsumers(database)
    await announce(database, "a")
    await check(lost_consumers)
    async with database.write() as session:
        await workers.remove(session, "a")
    assert await check(lost_consumers) == await check(lost_consumers) == []


async def test_a_late_heartbeat_is_no_loss(database: Database) -> None:
    lost_consumers = LostConsumers(database)
    await announce(database, "a")
    await check(lost_consumers)
    await announce(database, "a", workers.LIVE_SECONDS + 1)
    await check(lost_consumers)
    await announce(database, "a")
    assert await check(lost_consumers) == await check(lost_consumers) == []
