"""The scheduler's webhook deliverer: slow receivers of one owner delay no other owner, and free places are filled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import DatabaseUnavailable, InternalError, RateLimitedError
from internal import bootstrap
from internal.bootstrap import Application
from internal.scheduler import webhooks as sending
from internal.scheduler.webhooks import select_fairly
from repositories import failures, webhooks
from repositories.webhooks import Candidate
from tests.contract.rows import new_job
from tests.integration.test_consumer import open_application, settings_for


class Receivers:
    """A fake of outbound requests: hosts that begin with `slow` answer when they are released."""

    def __init__(self) -> None:
        self.requested: list[str] = []
        self.answered: list[str] = []
        self.release = asyncio.Event()
        self.most = 0

    async def post(self, url: str, *_: Any) -> int:
        self.requested.append(url)
        self.most = max(self.most, len(self.requested) - len(self.answered))
        if "//slow" in url:
            await self.release.wait()
        self.answered.append(url)
        return 200

    async def wait_for_request(self, url: str) -> None:
        async with asyncio.timeout(30):
            while url not in self.answered:
                await asyncio.sleep(0.01)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    async with open_application(settings_for(tmp_path)) as app:
        yield app


@pytest.fixture
def receivers(app: Application, monkeypatch: pytest.MonkeyPatch) -> Receivers:
    receivers = Receivers()
    monkeypatch.setattr(app.webhooks, "post", receivers.post)
    return receivers


async def failed_job(app: Application, url: str, owner: str) -> str:
    job_id = await new_job(app.database, owner, callback_url=url)
    async with app.database.write() as session:
        assert await failures.fail_job(session, job_id, InternalError(), "token")
    return job_id


async def run_rounds(deliverer: sending.WebhookDeliverer) -> None:
    while True:
        await deliverer.run_round()


@pytest.mark.parametrize("hosts", [1, 60], ids=["one slow host", "sixty slow hosts"])
async def test_slow_receivers_of_one_owner_delay_no_other_owner(
    app: Application, receivers: Receivers, hosts: int
) -> None:
    """Regression: a batch waited for its slowest member, so one owner's slow receivers delayed all by minutes."""
    for number in range(60):
        await failed_job(app, f"https://slow{number % hosts}.example/hook", "greedy")
    deliverer = bootstrap.webhook_deliverer(app)
    running = asyncio.create_task(run_rounds(deliverer))
    try:
        for number in range(12):
            url = f"https://quick.example/{number}"
            await failed_job(app, url, "modest")
            await receivers.wait_for_request(url)
        assert not [url for url in receivers.answered if "slow" in url]
        assert sum("slow" in url for url in receivers.requested) <= webhooks.PER_OWNER
        receivers.release.set()
        async with asyncio.timeout(60):
            while len(receivers.answered) < 72:
                await asyncio.sleep(0.02)
        assert len(set(receivers.requested)) == hosts + 12
    finally:
        running.cancel()
        await asyncio.wait([running])
        await deliverer.stop()


async def test_a_free_place_is_filled_while_others_are_in_progress(app: Application, receivers: Receivers) -> None:
    await failed_job(app, "https://slow.example/hook", "a")
    urls = [f"https://quick{number}.example/hook" for number in range(20)]
    for url in urls:
        await failed_job(app, url, "a")
    deliverer = bootstrap.webhook_deliverer(app)
    running = asyncio.create_task(run_rounds(deliverer))
    try:
        for url in urls:
            await receivers.wait_for_request(url)
        assert "https://slow.example/hook" not in receivers.answered
        assert receivers.most <= webhooks.PER_OWNER
    finally:
        running.cancel()
        await asyncio.wait([running])
        await deliverer.stop()


async def test_several_deliverers_deliver_each_webhook_once(app: Application, receivers: Receivers) -> None:
    urls = [f"https://quick{number}.example/hook" for number in range(30)]
    for number, url in enumerate(urls):
        await failed_job(app, url, f"owner-{number % 7}")
    deliverers = [bootstrap.webhook_deliverer(app) for _ in range(3)]
    running = [asyncio.create_task(run_rounds(deliverer)) for deliverer in deliverers]
    try:
        for url in urls:
            await receivers.wait_for_request(url)
        assert sorted(receivers.requested) == sorted(urls)
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for deliverer in deliverers:
            await deliverer.stop()


async def test_an_outcome_that_cannot_be_stored_stops_nothing(
    app: Application, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(webhooks, "mark_delivered", down)
    await failed_job(app, "https://quick.example/hook", "a")
    deliverer = bootstrap.webhook_deliverer(app)
    await deliverer.fill()
    await receivers.wait_for_request("https://quick.example/hook")
    await asyncio.gather(*deliverer._running)
    await deliverer.fill()
    assert len(receivers.requested) == 1, "its lease has not expired"
    await deliverer.stop()


async def test_repeated_requests_for_redelivery_are_refused_with_a_time(app: Application) -> None:
    job_id = await failed_job(app, "https://a.example/hook", "local")
    await app.services.jobs.redeliver_webhook(job_id, "local")
    with pytest.raises(RateLimitedError) as refused:
        await app.services.jobs.redeliver_webhook(job_id, "local")
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= webhooks.RESEND_INTERVAL


def test_owners_take_turns() -> None:
    """Among owners with equally many deliveries in progress, the one served least recently is next."""
    due = [
        Candidate(f"{owner}{number}", owner, f"{owner}.x", order)
        for order, (owner, number) in enumerate((owner, number) for owner in "abc" for number in range(4))
    ]
    assert select_fairly(due, [], 1, {"a": 9.0, "b": 5.0, "c": 7.0}) == ["b0"]
    assert select_fairly(due, [], 1, {"a": 9.0, "b": 5.0}) == ["c0"]
    assert select_fairly(due, [("c", "c.x")], 4, {"a": 9.0, "b": 5.0}) == ["b0", "a0", "c0", "b1"]
    assert select_fairly(due, [], 0, {}) == []
    assert len(select_fairly(due, [], sending.MAX_CONCURRENT, {})) == 3 * webhooks.PER_OWNER_AND_HOST
