"""Webhook deliveries on both databases: leased once, two per host, tried again on schedule, told to an end."""

from __future__ import annotations

import asyncio

from sqlalchemy import select, update

from core.database import Database, after
from core.domain.job import JobStatus
from core.errors import InternalError
from repositories import failures, webhooks
from repositories.models import WebhookDelivery
from repositories.webhooks import Delivery
from tests.contract.rows import finalise, new_job, planned_job, run_chunk


async def ended(database: Database, url: str) -> str:
    """A job with a callback, failed."""
    job_id = await new_job(database, callback_url=url)
    async with database.write() as session:
        assert await failures.fail_job(session, job_id, InternalError(), "token")
    return job_id


async def take(database: Database) -> list[Delivery]:
    async with database.write() as session:
        return await webhooks.take_due(session)


async def rows(database: Database, job_id: str) -> list[WebhookDelivery]:
    async with database.read() as session:
        return await webhooks.all_of(session, job_id)


async def test_each_end_is_told_once(database: Database) -> None:
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
    [told] = await rows(database, cancelled)
    assert (told.event_type, told.payload["data"]["status"]) == (webhooks.FAILED, JobStatus.CANCELLED)
    assert await rows(database, silent) == []


async def test_two_of_a_host_and_twenty_at_a_time(database: Database) -> None:
    for number in range(15):
        for _ in range(3):
            await ended(database, f"https://host-{number}.example/hook")
    first = await take(database)
    assert len(first) == webhooks.BATCH
    per_host = [delivery.url for delivery in first]
    assert max(map(per_host.count, per_host)) == webhooks.PER_HOST
    second = await take(database)
    assert not {one.webhook_id for one in first} & {one.webhook_id for one in second}


async def test_several_schedulers_share_them(database: Database) -> None:
    for number in range(10):
        await ended(database, f"https://host-{number}.example/hook")
    taken = [one.webhook_id for batch in await asyncio.gather(*(take(database) for _ in range(4))) for one in batch]
    assert len(taken) == len(set(taken)) == 10


async def test_a_lease_runs_out(database: Database) -> None:
    await ended(database, "https://a.example/hook")
    [first] = await take(database)
    assert await take(database) == []
    async with database.write() as session:
        await session.execute(update(WebhookDelivery).values(due_at=after(-1)))
    assert [one.webhook_id for one in await take(database)] == [first.webhook_id]


async def test_again_delivered_given_up_and_once_more(database: Database) -> None:
    job_id = await ended(database, "https://a.example/hook")
    [delivery] = await take(database)
    async with database.write() as session:
        await webhooks.again(session, delivery, 300, "the receiver answered 500")
    [row] = await rows(database, job_id)
    assert (row.failures, row.status, row.error_message) == (1, JobStatus.PENDING, "the receiver answered 500")
    assert await take(database) == []
    async with database.write() as session:
        await webhooks.given_up(session, delivery, "gone")
    [row] = await rows(database, job_id)
    assert (row.status, row.due_at) == (JobStatus.FAILED, None)
    async with database.write() as session:
        assert await webhooks.send_again(session, job_id)
    [once_more] = await take(database)
    assert (once_more.webhook_id, once_more.failures) == (delivery.webhook_id, 0)
    async with database.write() as session:
        await webhooks.delivered(session, once_more)
    async with database.read() as session:
        [(status, at)] = (await session.execute(select(WebhookDelivery.status, WebhookDelivery.delivered_at))).all()
    assert (status, at is not None) == (JobStatus.COMPLETED, True)


async def test_a_job_that_runs_has_nothing_to_send_again(database: Database) -> None:
    job_id = await new_job(database, callback_url="https://a.example/hook")
    async with database.write() as session:
        assert not await webhooks.send_again(session, job_id)
