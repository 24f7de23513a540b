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
from tests.integration.test_consumer import configured, made


class Receivers:
    """A fake of outbound requests: hosts that begin with `slow` answer when they are released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answered: list[str] = []
        self.let_go = asyncio.Event()
        self.most = 0

    async def post(self, url: str, *_: Any) -> int:
        self.asked.append(url)
        self.most = max(self.most, len(self.asked) - len(self.answered))
        if "//slow" in url:
            await self.let_go.wait()
        self.answered.append(url)
        return 200

    async def until(self, url: str) -> None:
        async with asyncio.timeout(30):
            while url not in self.answered:
                await asyncio.sleep(0.01)


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Application]:
    async with made(configured(tmp_path)) as found:
        yield found


@pytest.fixture
def receivers(parts: Application, monkeypatch: pytest.MonkeyPatch) -> Receivers:
    found = Receivers()
    monkeypatch.setattr(parts.webhooks, "post", found.post)
    return found


async def ended(parts: Application, url: str, owner: str) -> str:
    job_id = await new_job(parts.database, owner, callback_url=url)
    async with parts.database.write() as session:
        assert await failures.fail_job(session, job_id, InternalError(), "token")
    return job_id


async def turning(sender: sending.WebhookDeliverer) -> None:
    while True:
        await sender.run_round()


@pytest.mark.parametrize("hosts", [1, 60], ids=["one slow host", "sixty slow hosts"])
async def test_slow_receivers_of_one_owner_hold_up_nobody_else(
    parts: Application, receivers: Receivers, hosts: int
) -> None:
    """Regression: a batch waited for its slowest member, so one owner's slow receivers delayed all by minutes."""
    for number in range(60):
        await ended(parts, f"https://slow{number % hosts}.example/hook", "greedy")
    sender = bootstrap.webhook_deliverer(parts)
    running = asyncio.create_task(turning(sender))
    try:
        for number in range(12):
            url = f"https://quick.example/{number}"
            await ended(parts, url, "modest")
            await receivers.until(url)
        assert not [url for url in receivers.answered if "slow" in url]
        assert sum("slow" in url for url in receivers.asked) <= webhooks.PER_OWNER
        receivers.let_go.set()
        async with asyncio.timeout(60):
            while len(receivers.answered) < 72:
                await asyncio.sleep(0.02)
        assert len(set(receivers.asked)) == hosts + 12
    finally:
        running.cancel()
        await asyncio.wait([running])
        await sender.stop()


async def test_a_free_place_is_filled_while_others_are_still_under_way(
    parts: Application, receivers: Receivers
) -> None:
    await ended(parts, "https://slow.example/hook", "a")
    urls = [f"https://quick{number}.example/hook" for number in range(20)]
    for url in urls:
        await ended(parts, url, "a")
    sender = bootstrap.webhook_deliverer(parts)
    running = asyncio.create_task(turning(sender))
    try:
        for url in urls:
            await receivers.until(url)
        assert "https://slow.example/hook" not in receivers.answered
        assert receivers.most <= webhooks.PER_OWNER
    finally:
        running.cancel()
        await asyncio.wait([running])
        await sender.stop()


async def test_several_senders_deliver_each_once(parts: Application, receivers: Receivers) -> None:
    urls = [f"https://quick{number}.example/hook" for number in range(30)]
    for number, url in enumerate(urls):
        await ended(parts, url, f"owner-{number % 7}")
    senders = [bootstrap.webhook_deliverer(parts) for _ in range(3)]
    running = [asyncio.create_task(turning(sender)) for sender in senders]
    try:
        for url in urls:
            await receivers.until(url)
        assert sorted(receivers.asked) == sorted(urls)
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        for sender in senders:
            await sender.stop()


async def test_an_outcome_that_cannot_be_noted_ends_nothing(
    parts: Application, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_: Any) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(webhooks, "mark_delivered", down)
    await ended(parts, "https://quick.example/hook", "a")
    sender = bootstrap.webhook_deliverer(parts)
    await sender.fill()
    await receivers.until("https://quick.example/hook")
    await asyncio.gather(*sender._running)
    await sender.fill()
    assert len(receivers.asked) == 1, "its lease has not expired"
    await sender.stop()


async def test_asking_again_and_again_is_refused_with_a_time(parts: Application) -> None:
    job_id = await ended(parts, "https://a.example/hook", "local")
    await parts.services.jobs.redeliver_webhook(job_id, "local")
    with pytest.raises(RateLimitedError) as refused:
        await parts.services.jobs.redeliver_webhook(job_id, "local")
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= webhooks.RESEND_INTERVAL


def test_turns_go_round() -> None:
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
