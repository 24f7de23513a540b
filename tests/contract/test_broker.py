"""One suite for both brokers: bytes, priorities, delays, redelivery, dead letters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import httpx
import pytest

from core.config import QueueType
from core.errors import BrokerUnavailable, SettingsError
from core.messaging import rabbitmq
from core.messaging.memory import MemoryBroker
from core.messaging.port import (
    WORK_QUEUES,
    Ack,
    Broker,
    DeadLetter,
    DeadMessage,
    Delivery,
    Message,
    MessageType,
    QueueName,
    Retry,
    Verdict,
    decode,
)
from core.messaging.rabbitmq import RabbitMQBroker
from core.messaging.topology import AccessRefused, TopologyMismatch
from tests.servers.base import Server
from tests.servers.rabbitmq import LocalRabbitMQ, RabbitMQ, vhost_of

DELAYS = (0.3, 0.9)
WAIT_SECONDS = 20.0


class RawBroker(Broker, Protocol):
    async def publish_raw(self, queue: QueueName, body: bytes, *, level: int = 0, delay: float = 0.0) -> None: ...


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.servers)])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[RawBroker]:
    broker: MemoryBroker | RabbitMQBroker
    if request.param == "memory":
        broker = MemoryBroker(retry_delays=DELAYS)
    else:
        broker = RabbitMQBroker(request.getfixturevalue("rabbitmq_url"), retry_delays=DELAYS)
    await broker.start()
    yield broker
    await broker.stop()


def prepare(level: int = 0, **changes: object) -> Message:
    return replace(Message(MessageType.PREPARE, str(uuid.uuid4()), level=level), **changes)  # type: ignore[arg-type]


class Inbox:
    """A handler that records deliveries, returns the given verdict and wakes the test."""

    def __init__(self, answer: Callable[[Delivery], Awaitable[Verdict]] | None = None) -> None:
        self.got: list[Delivery] = []
        self._changed = asyncio.Condition()
        self._answer = answer

    async def __call__(self, delivery: Delivery) -> Verdict:
        async with self._changed:
            self.got.append(delivery)
            self._changed.notify_all()
        return await self._answer(delivery) if self._answer else Ack()

    async def wait(self, count: int) -> list[Delivery]:
        async with asyncio.timeout(WAIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: len(self.got) >= count)
        return self.got


async def ready(broker: Broker, name: QueueName, count: int) -> None:
    """Wait until a queue holds `count` ready messages."""
    async with asyncio.timeout(WAIT_SECONDS):
        while {row.name: row.ready for row in await broker.stats()}[name.value] != count:
            await asyncio.sleep(0.02)


async def test_a_message_arrives_unchanged(broker: RawBroker) -> None:
    sent = [
        prepare(level=3, language="vi", original_filename="tệp ghi âm.mp3"),
        Message(MessageType.TRANSCRIBE, "j", 7, failures=2, level=5),
        Message(MessageType.FINALISE, "j", level=9),
        Message(MessageType.FETCH, "j", level=4),
    ]
    inbox = Inbox()
    for message in sent:
        await broker.publish(message)
    for queue in WORK_QUEUES:
        await broker.consume(queue, inbox, 8)
    got = await inbox.wait(4)
    assert sorted((d.message for d in got), key=str) == sorted(sent, key=str)
    assert not any(delivery.redelivered for delivery in got)


async def test_the_highest_level_is_delivered_first(broker: RawBroker) -> None:
    for level in (0, 3, 9, 6, 3):
        await broker.publish(prepare(level))
    await ready(broker, QueueName.JOBS, 5)
    inbox = Inbox()
    await broker.consume(QueueName.JOBS, inbox, 1)
    assert [d.message.level for d in await inbox.wait(5)] == [9, 6, 3, 3, 0]


async def test_prefetch_limits_concurrent_deliveries(broker: RawBroker) -> None:
    release, running, most = asyncio.Event(), 0, 0

    async def answer(_: Delivery) -> Verdict:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return Ack()

    inbox = Inbox(answer)
    await broker.consume(QueueName.CHUNKS, inbox, 2)
    for index in range(6):
        await broker.publish(Message(MessageType.TRANSCRIBE, "j", index))
    await inbox.wait(2)
    await ready(broker, QueueName.CHUNKS, 4)
    release.set()
    await inbox.wait(6)
    assert most == 2


async def test_a_retry_is_redelivered_after_its_delay_with_its_level(broker: RawBroker) -> None:
    async def answer(delivery: Delivery) -> Verdict:
        message = delivery.message
        return Retry(0.3, replace(message, failures=message.failures + 1)) if message.failures < 2 else Ack()

    inbox = Inbox(answer)
    started = time.monotonic()
    await broker.consume(QueueName.CHUNKS, inbox, 4)
    await broker.publish(Message(MessageType.TRANSCRIBE, "j", 1, level=5))
    got = await inbox.wait(3)
    assert [d.message.failures for d in got] == [0, 1, 2]
    assert {d.message.level for d in got} == {5}
    assert time.monotonic() - started >= 0.6


async def test_a_retry_without_a_message_repeats_the_delivery(broker: RawBroker) -> None:
    answers = iter((Retry(0.3), Ack()))

    async def answer(_: Delivery) -> Verdict:
        return next(answers)

    inbox = Inbox(answer)
    await broker.consume(QueueName.JOBS, inbox, 4)
    await broker.publish(prepare(4))
    first, second = await inbox.wait(2)
    assert first.message == second.message


async def test_priority_is_kept_through_the_delay(broker: RawBroker) -> None:
    for level in (0, 8, 4):
        await broker.publish(prepare(level), delay=0.3)
    await ready(broker, QueueName.JOBS, 3)
    inbox = Inbox()
    await broker.consume(QueueName.JOBS, inbox, 1)
    assert [d.message.level for d in await inbox.wait(3)] == [8, 4, 0]


async def test_a_longer_delay_is_rounded_up_to_the_next_queue(broker: RawBroker) -> None:
    started = time.monotonic()
    inbox = Inbox()
    await broker.consume(QueueName.JOBS, inbox, 1)
    await broker.publish(prepare(), delay=0.5)
    await inbox.wait(1)
    assert time.monotonic() - started >= 0.9


async def test_undecodable_messages_are_dead_lettered(broker: RawBroker) -> None:
    inbox = Inbox()
    await broker.consume(QueueName.JOBS, inbox, 1)
    for body in (b"\xff\x00", b"[]", b'{"v":1}', b'{"v":1,"type":"Prepare","job_id":5}'):
        await broker.publish_raw(QueueName.JOBS, body)
    await ready(broker, QueueName.DEAD, 4)
    assert inbox.got == []


async def test_a_newer_version_is_handed_back(broker: RawBroker) -> None:
    inbox = Inbox()
    await broker.consume(QueueName.JOBS, inbox, 1)
    body = json.dumps({"v": 2, "type": "Prepare", "job_id": "j", "future": True}).encode()
    await broker.publish_raw(QueueName.JOBS, body, level=7)
    await broker.publish(prepare())
    await inbox.wait(1)
    await ready(broker, QueueName.DEAD, 0)
    assert len(inbox.got) == 1


async def test_a_handler_can_dead_letter_a_message(broker: RawBroker) -> None:
    async def answer(_: Delivery) -> Verdict:
        return DeadLetter("no use")

    await broker.consume(QueueName.CHUNKS, Inbox(answer), 1)
    await broker.publish(Message(MessageType.TRANSCRIBE, "j", 0))
    await ready(broker, QueueName.DEAD, 1)


async def test_a_message_is_redelivered_if_its_handler_raises(broker: RawBroker) -> None:
    async def answer(delivery: Delivery) -> Verdict:
        if len(inbox.got) == 1:
            raise RuntimeError("a bug")
        return Ack()

    inbox = Inbox(answer)
    await broker.consume(QueueName.JOBS, inbox, 1)
    await broker.publish(prepare())
    assert len(await inbox.wait(2)) == 2


async def test_unacknowledged_messages_are_redelivered(broker: RawBroker) -> None:
    never = asyncio.Event()

    async def hang(_: Delivery) -> Verdict:
        await never.wait()
        return Ack()

    hanging = Inbox(hang)
    subscription = await broker.consume(QueueName.CHUNKS, hanging, 1)
    await broker.publish(Message(MessageType.TRANSCRIBE, "j", 0))
    await hanging.wait(1)
    await subscription.drain(0)
    inbox = Inbox()
    await broker.consume(QueueName.CHUNKS, inbox, 1)
    assert (await inbox.wait(1))[0].redelivered


async def test_drain_lets_running_handlers_finish(broker: RawBroker) -> None:
    release = asyncio.Event()

    async def answer(_: Delivery) -> Verdict:
        await release.wait()
        return Ack()

    inbox = Inbox(answer)
    subscription = await broker.consume(QueueName.JOBS, inbox, 1)
    await broker.publish(prepare())
    await broker.publish(prepare())
    await inbox.wait(1)
    await subscription.cancel()
    await subscription.cancel()
    asyncio.get_running_loop().call_later(0.2, release.set)
    await subscription.drain(10)
    await ready(broker, QueueName.JOBS, 1)
    assert len(inbox.got) == 1


async def test_dead_letters_are_kept_with_their_headers(broker: RawBroker) -> None:
    await broker.publish(Message(MessageType.REPLAY, "j", token="t"), headers={"code": "TIMEOUT"})
    await ready(broker, QueueName.DEAD, 1)
    inbox = Inbox()
    await broker.consume(QueueName.DEAD, inbox, 1)
    delivery = (await inbox.wait(1))[0]
    assert delivery.message.token == "t"
    assert delivery.headers["code"] == "TIMEOUT"


async def test_dead_letters_can_be_listed_and_removed_one_by_one(broker: RawBroker) -> None:
    for token in ("a", "b", "c"):
        await broker.publish(Message(MessageType.REPLAY, "j", token=token), headers={"code": token})
    await ready(broker, QueueName.DEAD, 3)
    seen: list[str] = []

    async def remove(dead_letter: DeadMessage) -> bool:
        seen.append(decode(dead_letter.body).token or "")
        assert dead_letter.headers["code"] == seen[-1]
        return seen[-1] == "b"

    assert await broker.walk_dead_letters(remove) == 3
    assert seen == ["a", "b", "c"]
    await ready(broker, QueueName.DEAD, 2)
    seen.clear()
    assert await broker.walk_dead_letters(remove) == 2
    assert seen == ["a", "c"]


async def test_an_interrupted_listing_loses_no_dead_letter(broker: RawBroker) -> None:
    for name in ("one", "two", "three"):
        await broker.publish(Message(MessageType.REPLAY, name, token="t"))
    await ready(broker, QueueName.DEAD, 3)
    seen: list[str] = []

    async def remove(dead_letter: DeadMessage) -> bool:
        seen.append(decode(dead_letter.body).job_id)
        if len(seen) == 2:
            raise RuntimeError("the database went away")
        return len(seen) == 1 or len(seen) > 2

    with pytest.raises(RuntimeError):
        await broker.walk_dead_letters(remove)
    await ready(broker, QueueName.DEAD, 2)
    assert await broker.walk_dead_letters(remove) == 2
    assert seen == ["one", "two", "two", "three"]


async def test_a_stopped_broker_refuses_publishes(broker: RawBroker) -> None:
    await broker.ping()
    await broker.stop()
    await broker.stop()
    with pytest.raises(BrokerUnavailable):
        await broker.publish(prepare())
    with pytest.raises(BrokerUnavailable):
        await broker.ping()


async def test_a_thousand_messages_are_delivered(broker: RawBroker) -> None:
    inbox = Inbox()
    await broker.consume(QueueName.CHUNKS, inbox, 16)
    for index in range(1000):
        await broker.publish(Message(MessageType.TRANSCRIBE, "j", index))
    got = await inbox.wait(1000)
    assert {d.message.chunk_index for d in got} == set(range(1000))


async def test_a_cancelled_subscription_has_not_failed(broker: RawBroker) -> None:
    subscription = await broker.consume(QueueName.JOBS, Inbox(), 1)
    failed = asyncio.create_task(subscription.failed())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(failed), 0.1)
    await subscription.cancel()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(failed), 0.1)
    failed.cancel()


async def test_draining_can_be_cancelled(broker: RawBroker) -> None:
    """Regression: closing a connection swallowed the cancellation of the task that waited for it."""
    subscription = await broker.consume(QueueName.JOBS, Inbox(), 1)
    draining = asyncio.create_task(subscription.drain(30))
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(WAIT_SECONDS):
            await draining


# -- real broker only --------------------------------------------------------------------------------------------------
@pytest.fixture
async def rabbit(rabbitmq_url: str) -> AsyncIterator[RabbitMQBroker]:
    broker = RabbitMQBroker(rabbitmq_url, retry_delays=DELAYS)
    await broker.start()
    yield broker
    await broker.stop()


async def publish_with_retries(broker: Broker, message: Message) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            with contextlib.suppress(BrokerUnavailable):
                await broker.publish(message)
                return
            await asyncio.sleep(0.2)


@pytest.mark.servers
async def test_subscriptions_survive_a_broker_crash(rabbit: RabbitMQBroker, rabbitmq_server: RabbitMQ) -> None:
    if not isinstance(rabbitmq_server, Server):
        pytest.skip("an external server cannot be stopped")
    inbox = Inbox()
    await rabbit.consume(QueueName.JOBS, inbox, 1)
    await asyncio.to_thread(rabbitmq_server.kill)
    with pytest.raises(BrokerUnavailable):
        await rabbit.publish(prepare())
    await asyncio.to_thread(rabbitmq_server.start)
    await publish_with_retries(rabbit, prepare())
    await inbox.wait(1)


@pytest.mark.servers
async def test_after_a_restart_each_process_reports_the_broker_as_up_at_its_first_ping(
    rabbitmq_url: str, rabbitmq_server: RabbitMQ
) -> None:
    """Otherwise /health alternates between up and down, as each process notices its lost connection."""
    if not isinstance(rabbitmq_server, Server):
        pytest.skip("an external server cannot be stopped")
    processes = [RabbitMQBroker(rabbitmq_url, retry_delays=DELAYS) for _ in range(3)]
    for process in processes:
        await process.start()
    await asyncio.to_thread(rabbitmq_server.kill)
    with pytest.raises(BrokerUnavailable):
        await processes[0].ping()
    await asyncio.to_thread(rabbitmq_server.start)
    await publish_with_retries(processes[0], prepare())
    for process in processes:
        await process.ping()
        await process.stop()


@pytest.mark.servers
async def test_deleted_queues_and_exchanges_are_declared_again(
    rabbit: RabbitMQBroker, shared_rabbitmq: RabbitMQ, rabbitmq_url: str
) -> None:
    inbox = Inbox()
    await rabbit.consume(QueueName.JOBS, inbox, 1)
    async with httpx.AsyncClient(base_url=shared_rabbitmq.management) as client:
        for path in (f"queues/{vhost_of(rabbitmq_url)}/stt_jobs", f"exchanges/{vhost_of(rabbitmq_url)}/stt"):
            (await client.delete(f"/api/{path}")).raise_for_status()
    await publish_with_retries(rabbit, prepare())
    await inbox.wait(1)


@pytest.mark.servers
async def test_a_closed_connection_is_reopened(
    rabbit: RabbitMQBroker, shared_rabbitmq: RabbitMQ, rabbitmq_url: str
) -> None:
    inbox = Inbox()
    await rabbit.consume(QueueName.JOBS, inbox, 1)
    async with httpx.AsyncClient(base_url=shared_rabbitmq.management) as client, asyncio.timeout(WAIT_SECONDS):
        connections: list[str] = []
        while len(connections) < 2:
            rows = (await client.get("/api/connections")).json()
            connections = [row["name"] for row in rows if row.get("vhost") == vhost_of(rabbitmq_url)]
            await asyncio.sleep(0.1)
        for name in connections:
            await client.delete(f"/api/connections/{name}")
    await publish_with_retries(rabbit, prepare())
    await inbox.wait(1)


@pytest.mark.servers
async def test_the_error_for_a_queue_with_other_arguments_names_it(rabbit: RabbitMQBroker, rabbitmq_url: str) -> None:
    other = RabbitMQBroker(rabbitmq_url, retry_delays=DELAYS, dead_letter_ttl=5)
    with pytest.raises(TopologyMismatch, match="stt_jobs_dlq"):
        await other.start()
    await other.stop()


async def redeclare(server: RabbitMQ, url: str, queue: str) -> None:
    """Declare the queue again with other arguments, as another program would."""
    path = f"/api/queues/{vhost_of(url)}/{queue}"
    async with httpx.AsyncClient(base_url=server.management) as client:
        (await client.delete(path)).raise_for_status()
        (await client.put(path, json={"durable": True, "arguments": {"x-message-ttl": 5}})).raise_for_status()


@pytest.mark.servers
async def test_a_queue_declared_with_other_arguments_fails_the_subscription(
    rabbit: RabbitMQBroker, rabbitmq_server: RabbitMQ, rabbitmq_url: str
) -> None:
    """Regression: the reconnecting task failed, and the consumer kept running without a subscription."""
    subscription = await rabbit.consume(QueueName.JOBS, Inbox(), 1)
    await rabbit.publish(prepare())
    await redeclare(rabbitmq_server, rabbitmq_url, "stt_jobs")
    async with asyncio.timeout(WAIT_SECONDS):
        error = await subscription.failed()
    assert isinstance(error, TopologyMismatch)
    assert "stt_jobs" in str(error)
    assert "start again" in str(error)
    await rabbit._publishing.drop()
    with pytest.raises(BrokerUnavailable, match="stt_jobs"):
        await rabbit.publish(prepare())
    await subscription.drain(0)


@pytest.mark.servers
async def test_permanently_refused_access_fails_the_subscription(
    rabbit: RabbitMQBroker, rabbitmq_server: RabbitMQ, rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "RECONNECT_PAUSE", 0.05)
    monkeypatch.setattr(rabbitmq, "MAX_REFUSALS", 3)
    subscription = await rabbit.consume(QueueName.JOBS, Inbox(), 1)
    rabbit._consuming._url = rabbitmq_url.replace("//", "//nobody:nothing@").replace(
        "//nobody:nothing@" + rabbitmq_url.partition("//")[2].partition("@")[0] + "@", "//nobody:nothing@"
    )
    await rabbit._consuming.drop()
    async with asyncio.timeout(WAIT_SECONDS):
        error = await subscription.failed()
    assert isinstance(error, AccessRefused)
    assert "stt_jobs" in str(error)
    await subscription.drain(0)


@pytest.mark.servers
async def test_a_subscription_fails_with_its_task(rabbit: RabbitMQBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = await rabbit.consume(QueueName.JOBS, Inbox(), 1)

    async def bug(_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(rabbitmq._Subscription, "_subscribe", bug)
    await rabbit._consuming.drop()
    async with asyncio.timeout(WAIT_SECONDS):
        assert isinstance(await subscription.failed(), LookupError)


@pytest.mark.servers
async def test_dropping_a_connection_can_be_cancelled(rabbit: RabbitMQBroker) -> None:
    """Regression: it swallowed the cancellation, so a process kept connecting after SIGTERM."""
    dropping = asyncio.create_task(rabbit._publishing.drop())
    await asyncio.sleep(0)
    dropping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropping


@pytest.mark.servers
async def test_a_memory_alarm_refuses_publishes_but_not_acknowledgements(
    rabbit: RabbitMQBroker, rabbitmq_server: RabbitMQ
) -> None:
    if not isinstance(rabbitmq_server, LocalRabbitMQ):
        pytest.skip("an external server cannot be controlled")
    release = asyncio.Event()

    async def answer(_: Delivery) -> Verdict:
        await release.wait()
        return Ack()

    inbox = Inbox(answer)
    await rabbit.consume(QueueName.JOBS, inbox, 1)
    await rabbit.publish(prepare())
    await inbox.wait(1)
    await asyncio.to_thread(rabbitmq_server.control, "set_vm_memory_high_watermark", "0")
    try:
        started = time.monotonic()
        with pytest.raises(BrokerUnavailable):
            for _ in range(3):  # the server blocks a connection at its first publish after the alarm
                await rabbit.publish(prepare())
        assert time.monotonic() - started < 15, "a blocked publish never returns"
        release.set()
    finally:
        await asyncio.to_thread(rabbitmq_server.control, "set_vm_memory_high_watermark", "0.6")
    await publish_with_retries(rabbit, prepare())
    await inbox.wait(2)


@pytest.mark.servers
async def test_an_old_server_is_refused_by_every_connection(rabbitmq_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: the connection of the first attempt was kept, and the second one declared quorum queues anyway."""
    monkeypatch.setattr("core.messaging.rabbitmq._version", lambda _: "3.10.8")
    broker = RabbitMQBroker(rabbitmq_url, retry_delays=DELAYS, queue_type=QueueType.QUORUM)
    for _ in range(3):
        with pytest.raises(SettingsError):
            await broker.start()
    await broker.stop()
