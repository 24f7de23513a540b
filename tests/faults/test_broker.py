"""RabbitMQ is killed, emptied, alarmed, cut off and fed with nonsense; what was accepted is done once."""

from __future__ import annotations

import asyncio
import json
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select

from core.domain.job import Priority
from core.domain.job_options import JobOptions
from core.messaging.port import Message, MessageType, QueueName
from core.messaging.rabbitmq import RabbitMQBroker
from internal.services import publishing
from repositories import jobs
from repositories.claims import WakeUp
from repositories.jobs import NewJob
from repositories.models import Job
from tests.faults.harness import Harness
from tests.servers.base import wait_until
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import LocalRabbitMQ, RabbitMQ
from tests.speech import silence, write_wav

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(600)]
BACKLOG = 400


def management(server: RabbitMQ) -> httpx.Client:
    return httpx.Client(base_url=server.management, timeout=20)


def ready(harness: Harness) -> dict[str, int]:
    """Messages that wait, by queue."""

    async def ask() -> dict[str, int]:
        async with harness.parts() as parts:
            await parts.broker.start()
            return {row.name: row.ready for row in await parts.broker.stats()}

    return asyncio.run(ask())


@pytest.mark.parametrize("lost", ["queue", "exchange", "content"])
def test_what_waited_in_the_broker_is_gone(harness: Harness, clip: Path, shared_rabbitmq: RabbitMQ, lost: str) -> None:
    """A deleted queue or exchange is declared again, and what was lost with it is published again."""
    job_id = harness.upload(clip)
    wait_until(lambda: ready(harness)["stt_jobs"] >= 1, "the wake-up waits", 20)
    vhost = harness.queue("").split("/")[3]
    path = {
        "queue": harness.queue("stt_jobs"),
        "exchange": f"/api/exchanges/{vhost}/stt",
        "content": harness.queue("stt_jobs") + "/contents",
    }[lost]
    with management(shared_rabbitmq) as client:
        client.delete(path).raise_for_status()
    second = harness.upload(clip)
    # what is seen lost has been published over half a minute ago
    harness.sql("UPDATE jobs SET updated_at = updated_at - interval '40 seconds'")
    wait_until(lambda: ready(harness)["stt_jobs"] >= 1, "published again", 60)
    harness.consumer()
    harness.wait(job_id)
    harness.wait(second)


def test_submits_survive_a_memory_alarm(harness: Harness, clip: Path, broker_server: LocalRabbitMQ) -> None:
    consumer = harness.consumer()
    harness.wait(harness.upload(clip))
    broker_server.control("set_vm_memory_high_watermark", "0")
    try:
        accepted = [harness.upload(clip) for _ in range(5)]
    finally:
        broker_server.control("set_vm_memory_high_watermark", "0.6")
    for job_id in accepted:
        harness.wait(job_id)
    assert consumer.popen.poll() is None


def test_killed_mid_job(harness: Harness, long_recording: tuple[Path, str], broker_server: LocalRabbitMQ) -> None:
    """What was in flight runs at most once more."""
    consumer = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    consumer.wait_reached()
    broker_server.kill()
    meanwhile = harness.upload(long_recording[0])
    broker_server.start()
    consumer.let_go()
    harness.wait(job_id)
    harness.wait(meanwhile)
    assert max(harness.attempts(job_id).values()) <= 2


def test_restarted_mid_job(harness: Harness, long_recording: tuple[Path, str], broker_server: LocalRabbitMQ) -> None:
    consumer = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    consumer.wait_reached()
    broker_server.restart()
    consumer.let_go()
    harness.wait(job_id)
    assert max(harness.attempts(job_id).values()) <= 2


def test_killed_with_a_backlog(harness: Harness, tmp_path: Path, broker_server: LocalRabbitMQ) -> None:
    """Four hundred waiting jobs are neither lost nor published all over again."""
    with harness.schedulers_paused():  # on a busy machine rows become due before all of them are published
        found = asyncio.run(backlog(harness, write_wav(tmp_path / "short.wav", silence(0.2)).read_bytes()))
        assert ready(harness)["stt_jobs"] == BACKLOG
    broker_server.kill()
    broker_server.start()
    wait_until(lambda: ready(harness)["stt_jobs"] == BACKLOG, "durable", 30)
    harness.consumer("decodes to silence")
    harness.consumer("decodes to silence")
    open_jobs = "SELECT count(*) FROM jobs WHERE status IN ('PENDING', 'PROCESSING')"
    wait_until(lambda: harness.sql(open_jobs)[0][0] == 0, "all have ended", 200)
    [(completed,)] = harness.sql("SELECT count(*) FROM jobs WHERE owner = 'backlog' AND status = 'COMPLETED'")
    assert completed == len(found) == BACKLOG
    [(published,)] = harness.sql("SELECT max(publishes) FROM jobs WHERE owner = 'backlog'")
    assert published <= 2, f"a waiting job was published {published} times"


async def backlog(harness: Harness, sound: bytes) -> list[str]:
    """Create and publish BACKLOG jobs of one small recording, as the API does."""
    async with harness.parts() as parts:
        await parts.storage.start()
        await parts.broker.start()
        await parts.storage.put_bytes("uploads/shared/short.wav", sound)
        ids = [str(uuid.uuid4()) for _ in range(BACKLOG)]
        common = {"language": "en", "model": "demo-q5_0", "priority": Priority.NORMAL, "options": JobOptions()}
        for group in range(0, BACKLOG, 100):
            async with parts.database.write() as session:
                for job_id in ids[group : group + 100]:
                    await jobs.create(
                        session,
                        NewJob(
                            job_id,
                            "backlog",
                            original_filename="short.wav",
                            audio_key="uploads/shared/short.wav",
                            file_size=len(sound),
                            **common,  # type: ignore[arg-type]
                        ),
                    )
            async with parts.database.read() as session:
                rows = (await session.execute(select(Job).where(Job.job_id.in_(ids[group : group + 100])))).scalars()
                messages = [publishing.prepare_message(job, WakeUp(job.job_id, None, 0)) for job in rows]
            assert await parts.publisher.publish(messages)
        return ids


def test_a_silently_dropped_connection(
    harness: Harness, long_recording: tuple[Path, str], broker_server: LocalRabbitMQ
) -> None:
    """Noticed by the missed heartbeats, within 35 s; the work goes on."""
    address = urlsplit(harness.service.environment["RABBITMQ_URL"])
    assert address.port is not None
    line = Proxy("127.0.0.1", address.port)
    line.start()
    try:
        url = harness.service.environment["RABBITMQ_URL"].replace(f":{address.port}", f":{line.port}")
        consumer = harness.consumer("mid-chunk", RABBITMQ_URL=url)
        job_id = harness.upload(long_recording[0])
        consumer.wait_reached()
        line.go_silent()
        consumer.wait_said("reconnecting", 35)
        consumer.let_go()
        harness.wait(job_id)
        consumer.kill()
    finally:
        line.stop()


def test_the_same_message_a_hundred_times_to_four_consumers(harness: Harness, long_recording: tuple[Path, str]) -> None:
    first = harness.consumer("after planning")
    job_id = harness.upload(long_recording[0])
    first.wait_reached()
    [(chunks,)] = harness.sql(f"SELECT chunks_total FROM jobs WHERE job_id = '{job_id}'")
    harness.wake_ups(job_id, 100, tuple(range(chunks)))
    harness.wake_ups(job_id, 100)
    others = [harness.consumer(wait=False) for _ in range(3)]
    first.let_go()
    harness.wait(job_id)
    wait_until(lambda: ready(harness)["stt_chunks"] == 0, "all are answered", 60)
    for action, times in (("chunk_completed", chunks), ("job_completed", 1)):
        said = [line for one in (first, *others) for line in one.said(action) if line["job_id"] == job_id]
        assert len(said) == times


def test_messages_that_are_none_of_ours(harness: Harness, clip: Path, shared_rabbitmq: RabbitMQ) -> None:
    """Dead-lettered; handed back with a delay; dropped. The consumer lives."""
    consumer = harness.consumer()
    before = ready(harness)["stt_jobs_dlq"]
    gone = harness.upload(clip)
    harness.wait(gone)
    assert harness.service.client.delete(f"/api/v1/jobs/{gone}").status_code == 204
    newer = json.dumps({"v": 99, "type": "Prepare", "job_id": gone}).encode()
    asyncio.run(throw(harness, [b"\xff\x00 nonsense", b"[]", b'{"v": 1}', newer], Message(MessageType.PREPARE, gone)))
    wait_until(lambda: ready(harness)["stt_jobs_dlq"] == before + 3, "three dead letters", 20)
    consumer.wait_said("newer_message")
    harness.wait(harness.upload(clip))
    assert consumer.popen.poll() is None
    # a message of a newer version goes round until somebody reads it: take it out again
    consumer.kill()
    wait_until(lambda: ready(harness)["stt_chunks"] == 1, "it is back", 20)
    with management(shared_rabbitmq) as client:
        for queue in ("stt_chunks", "stt_jobs_dlq"):
            client.delete(harness.queue(queue) + "/contents").raise_for_status()


async def throw(harness: Harness, bodies: list[bytes], message: Message) -> None:
    async with harness.parts() as parts:
        assert isinstance(parts.broker, RabbitMQBroker)
        await parts.broker.start()
        await parts.broker.publish(message)
        for body in bodies:
            await parts.broker.publish_raw(QueueName.CHUNKS, body)
