"""Webhook deliveries on both databases: leased once, shared by owner and host, retried on schedule."""

from __future__ import annotations

import asyncio

from sqlalchemy import select, update

from core.database import Database, after
from core.domain.job import JobStatus
from core.errors import InternalError
from internal.scheduler.webhooks import MAX_CONCURRENT, select_fairly
from repositories import failures, webhooks
from repositories.models import WebhookDelivery
from repositories.webhooks import WebhookAttempt
from tests.contract.rows import finalise, new_job, planned_job, run_chunk


async def failed_job(database: Database, url: str, owner: str = "local") -> str:
    """Create a failed job with a callback."""
    job_id = await new_job(database, owner, callback_url=url)
    async with database.write() as session:
        assert await failures.fail_job(session, job_id, InternalError(), "token")
    return job_id


async def take(database: Database, free: int = MAX_CONCURRENT) -> list[WebhookAttempt]:
    """Lease deliveries as one scheduler does."""
    async with database.write() as session:
        busy = await webhooks.list_leased(session)
        due = await webhooks.list_due(session, set(), set())
        return await webhooks.lease(session, select_fairly(due, busy, free, {}), "scheduler-1")


async def due_in(database: Database, job_id: str, seconds: float) -> None:
    async with database.write() as session:
        of_job = WebhookDelivery.job_id == job_id
        await session.execute(update(WebhookDelivery).where(of_job).values(due_at=after(seconds)))


async def rows(database: Database, job_id: str) -> list[WebhookDelivery]:
    async with database.read() as session:
        statement = select(WebhookDelivery).where(WebhookDelivery.job_id == job_id)
        return list((await session.execute(statement.order_by(WebhookDelivery.created_at))).scalars())


async def test_each_end_of_a_job_has_one_delivery(database: Database) -> None:
    url = "https://a.example/hook"
    done = await planned_job(database, 1, callback_url=url)
    await run_chunk(database, done, 0)
    assert await finalise(database, done)
    assert not await finalise(database, done)
    cancelled = await new_job(database, callback_url=url)
    silent = await new_job(database)
    async with database.write() as session:
        assert await failures.cancel_job(session, cancelled, "local")
        assert await failures.cancel_job(session, silent, "local")
    assert [row.event_type for row in await rows(database, done)] == [webhooks.COMPLETED]
    [delivery] = await rows(database, cancelled)
    assert (delivery.event_type, delivery.payload["data"]["status"]) == (webhooks.FAILED, JobStatus.CANCELLED)
    assert await rows(database, silent) == []


async def test_a_backlog_over_many_hosts_leaves_room_for_other_owners(database: Database) -> None:
    """Regression: hosts were taken in alphabetical order, so early names always came first."""
    for number in range(40):
        await due_in(database, await failed_job(database, f"https://a{number}.example/hook", "greedy"), -900)
    for _ in range(10):
        await due_in(database, await failed_job(database, "https://aaa.example/hook", "greedy"), -1000)
    late = await failed_job(database, "https://zzz.example/hook", "modest")
    first = await take(database)
    owners = [delivery.owner for delivery in first]
    assert owners.count("greedy") == webhooks.PER_OWNER
    assert late in [delivery.job_id for delivery in first]
    assert await take(database) == [], "limits include deliveries in progress"


async def test_limits_of_a_host_and_of_an_owner_at_a_host(database: Database) -> None:
    for owner in ("a", "b", "c"):
        for _ in range(5):
            await failed_job(database, "https://shared.example/hook", owner)
    taken = [delivery.owner for delivery in await take(database)]
    assert len(taken) == webhooks.PER_HOST
    assert set(taken) == {"a", "b", "c"}
    assert max(map(taken.count, taken)) <= webhooks.PER_OWNER_AND_HOST


async def test_the_longest_due_delivery_is_first(database: Database) -> None:
    jobs = [await failed_job(database, f"https://host-{number}.example/hook") for number in range(4)]
    for number, job_id in enumerate(jobs):
        await due_in(database, job_id, -100 - number)
    assert [one.job_id for one in await take(database, 1)] == [jobs[3]]
    assert [one.job_id for one in await take(database, 1)] == [jobs[2]]


async def test_several_schedulers_share_the_deliveries(database: Database) -> None:
    for number in range(10):
        await failed_job(database, f"https://host-{number}.example/hook", f"owner-{number}")
    taken = [one.webhook_id for batch in await asyncio.gather(*(take(database) for _ in range(4))) for one in batch]
    assert len(taken) == len(set(taken)) == 10


async def test_a_delivery_is_due_again_after_its_lease(database: Database) -> None:
    await failed_job(database, "https://a.example/hook")
    [first] = await take(database)
    assert await take(database) == []
    async with database.write() as session:
        await session.execute(update(WebhookDelivery).values(due_at=after(-1)))
    assert [one.webhook_id for one in await take(database)] == [first.webhook_id]


async def test_states_of_a_delivery(database: Database) -> None:
    job_id = await failed_job(database, "https://a.example/hook")
    [stale] = await take(database)
    await due_in(database, job_id, -1)
    [delivery] = await take(database)
    async with database.write() as session:
        await webhooks.retry_later(session, stale, 300, "too late")
    assert (await rows(database, job_id))[0].failures == 0
    async with database.write() as session:
        await webhooks.retry_later(session, delivery, 300, "the receiver answered 500")
    [row] = await rows(database, job_id)
    assert (row.failures, row.status, row.error_message) == (1, JobStatus.PENDING, "the receiver answered 500")
    assert await take(database) == []
    async with database.write() as session:
        await webhooks.mark_failed(session, delivery, "gone")
    [row] = await rows(database, job_id)
    assert (row.status, row.due_at) == (JobStatus.FAILED, None)
    async with database.write() as session:
        assert await webhooks.resend(session, job_id) == 0
    [once_more] = await take(database)
    assert (once_more.webhook_id, once_more.failures) == (delivery.webhook_id, 0)
    async with database.write() as session:
        await webhooks.mark_delivered(session, once_more)
    async with database.read() as session:
        [(status, at)] = (await session.execute(select(WebhookDelivery.status, WebhookDelivery.delivered_at))).all()
    assert (status, at is not None) == (JobStatus.COMPLETED, True)


async def test_a_running_job_has_no_delivery_to_repeat(database: Database) -> None:
    job_id = await new_job(database, callback_url="https://a.example/hook")
    async with database.write() as session:
        assert await webhooks.resend(session, job_id) is None


async def test_redelivery_can_be_requested_once_a_minute(database: Database) -> None:
    job_id = await failed_job(database, "https://a.example/hook")
    [delivery] = await take(database)
    async with database.write() as session:
        wait = await webhooks.resend(session, job_id)
    assert wait is not None
    assert 0 < wait <= webhooks.LEASE, "a delivery is in progress"
    async with database.write() as session:
        await webhooks.mark_delivered(session, delivery)
    async with database.write() as session:
        assert await webhooks.resend(session, job_id) == 0
    async with database.write() as session:
        wait = await webhooks.resend(session, job_id)
    assert wait is not None
    assert 0 < wait <= webhooks.RESEND_INTERVAL
    async with database.write() as session:
        await session.execute(update(WebhookDelivery).values(asked_at=after(-webhooks.RESEND_INTERVAL)))
    async with database.write() as session:
        assert await webhooks.resend(session, job_id) == 0
