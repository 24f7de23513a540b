"""A RabbitMQ that is killed, emptied, out of memory, cut off, or given invalid messages: accepted jobs run once."""

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
BACKLOG = 150


def management(server: RabbitMQ) -> httpx.Client:
    return httpx.Client(base_url=server.management, timeout=20)


def ready_messages(harness: Harness) -> dict[str, int]:
    """Return the number of ready messages by queue."""

    async def query() -> dict[str, int]:
        async with harness.application() as app:
            await app.broker.start()
            return {row.name: row.ready for row in await app.broker.stats()}

    return asyncio.run(query())


@pytest.mark.parametrize("lost", ["queue", "exchange", "content"])
def test_messages_lost_by_the_broker_are_published_again(
    harness: Harness, clip: Path, shared_rabbitmq: RabbitMQ, lost: str
) -> None:
    """A deleted queue or exchange is declared again, and the messages lost with it are published again."""
    job_id = harness.upload(clip)
    wait_until(lambda: ready_messages(harness)["stt_jobs"] >= 1, "the wake-up is in the queue", 20)
    vhost = harness.queue_path("").split("/")[3]
    path = {
        "queue": harness.queue_path("stt_jobs"),
        "exchange": f"/api/exchanges/{vhost}/stt",
        "content": harness.queue_path("stt_jobs") + "/contents",
    }[lost]
    with management(shared_rabbitmq) as client:
        client.delete(path).raise_for_status()
    second = harness.upload(clip)
    # rows count as lost only if they were published more than half a minute ago
    harness.sql("UPDATE jobs SET updated_at = updated_at - interval '40 seconds'")
    wait_until(lambda: ready_messages(harness)["stt_jobs"] >= 1, "the wake-ups are published again", 60)
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


def test_a_job_survives_a_broker_crash(
    harness: Harness, long_recording: tuple[Path, str], broker_server: LocalRabbitMQ
) -> None:
    """A chunk that was running is run at most once more."""
    consumer = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    consumer.wait_for_step()
    broker_server.kill()
    meanwhile = harness.upload(long_recording[0])
    broker_server.start()
    consumer.release()
    harness.wait(job_id)
    harness.wait(meanwhile)
    assert max(harness.attempts(job_id).values()) <= 2


def test_a_job_survives_a_broker_restart(
    harness: Harness, long_recording: tuple[Path, str], broker_server: LocalRabbitMQ
) -> None:
    consumer = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    consumer.wait_for_step()
    broker_server.restart()
    consumer.release()
    harness.wait(job_id)
    assert max(harness.attempts(job_id).values()) <= 2


def test_a_backlog_survives_a_broker_crash(harness: Harness, tmp_path: Path, broker_server: LocalRabbitMQ) -> None:
    """Waiting jobs are neither lost nor all published again."""
    with harness.schedulers_paused():  # on a busy machine rows become due before all of them are published
        job_ids = asyncio.run(backlog(harness, write_wav(tmp_path / "short.wav", silence(0.2)).read_bytes()))
        assert ready_messages(harness)["stt_jobs"] == BACKLOG
    broker_server.kill()
    broker_server.start()
    wait_until(lambda: ready_messages(harness)["stt_jobs"] == BACKLOG, "durable", 30)
    harness.consumer("decodes to silence")
    harness.consumer("decodes to silence")
    open_jobs = "SELECT count(*) FROM jobs WHERE status IN ('PENDING', 'PROCESSING')"
    wait_until(lambda: harness.sql(open_jobs)[0][0] == 0, "all jobs have ended", 200)
    [(completed,)] = harness.sql("SELECT count(*) FROM jobs WHERE owner = 'backlog' AND status = 'COMPLETED'")
    assert completed == len(job_ids) == BACKLOG
    [(published,)] = harness.sql("SELECT max(publishes) FROM jobs WHERE owner = 'backlog'")
    assert published <= 2, f"a waiting job was published {published} times"


async def backlog(harness: Harness, audio: bytes) -> list[str]:
    """Create and publish BACKLOG jobs for one small recording, as the API does."""
    async with harness.application() as app:
        await app.storage.start()
        await app.broker.start()
        await app.storage.put_bytes("uploads/shared/short.wav", audio)
        ids = [str(uuid.uuid4()) for _ in range(BACKLOG)]
        common = {"language": "en", "model": "demo-q5_0", "priority": Priority.NORMAL, "options": JobOptions()}
        for group in range(0, BACKLOG, 50):
            async with app.database.write() as session:
                for job_id in ids[group : group + 50]:
                    await jobs.create(
                        session,
                        NewJob(
                            job_id,
                            "backlog",
                            original_filename="short.wav",
                            audio_key="uploads/shared/short.wav",
                            file_size=len(audio),
                            **common,  # type: ignore[arg-type]
                        ),
                    )
            async with app.database.read() as session:
                rows = (await session.execute(select(Job).where(Job.job_id.in_(ids[group : group + 50])))).scalars()
                messages = [publishing.prepare_message(job, WakeUp(job.job_id, None, 0)) for job in rows]
            assert await app.publisher.publish(messages)
        return ids


def test_a_silent_connection_is_detected(
    harness: Harness, long_recording: tuple[Path, str], broker_server: LocalRabbitMQ
) -> None:
    """Missed heartbeats reveal it within 35 s, and the work continues."""
    address = urlsplit(harness.service.environment["RABBITMQ_URL"])
    assert address.port is not None
    proxy = Proxy("127.0.0.1", address.port)
    proxy.start()
    try:
        url = harness.service.environment["RABBITMQ_URL"].replace(f":{address.port}", f":{proxy.port}")
        consumer = harness.consumer("mid-chunk", RABBITMQ_URL=url)
        job_id = harness.upload(long_recording[0])
        consumer.wait_for_step()
        proxy.go_silent()
        consumer.wait_for_log("reconnecting", 35)
        consumer.release()
        harness.wait(job_id)
        consumer.kill()
    finally:
        proxy.stop()


def test_a_hundred_copies_of_a_message_are_processed_once(harness: Harness, long_recording: tuple[Path, str]) -> None:
    first = harness.consumer("after planning")
    job_id = harness.upload(long_recording[0])
    first.wait_for_step()
    [(chunks,)] = harness.sql(f"SELECT chunks_total FROM jobs WHERE job_id = '{job_id}'")
    harness.publish_wake_ups(job_id, 100, tuple(range(chunks)))
    harness.publish_wake_ups(job_id, 100)
    other_consumers = [harness.consumer(wait=False) for _ in range(3)]
    first.release()
    harness.wait(job_id)
    wait_until(lambda: ready_messages(harness)["stt_chunks"] == 0, "all messages are acknowledged", 60)
    for action, count in (("chunk_completed", chunks), ("job_completed", 1)):
        entries = [
            entry
            for consumer in (first, *other_consumers)
            for entry in consumer.log_entries(action)
            if entry["job_id"] == job_id
        ]
        assert len(entries) == count


def test_invalid_newer_and_obsolete_messages_do_not_stop_the_consumer(
    harness: Harness, clip: Path, shared_rabbitmq: RabbitMQ
) -> None:
    """Undecodable messages are dead-lettered, newer ones handed back with a delay, those of deleted jobs dropped."""
    consumer = harness.consumer()
    before = ready_messages(harness)["stt_jobs_dlq"]
    deleted = harness.upload(clip)
    harness.wait(deleted)
    assert harness.service.client.delete(f"/api/v1/jobs/{deleted}").status_code == 204
    newer_message = json.dumps({"v": 99, "type": "Prepare", "job_id": deleted}).encode()
    asyncio.run(
        publish_raw_bodies(
            harness, [b"\xff\x00 nonsense", b"[]", b'{"v": 1}', newer_message], Message(MessageType.PREPARE, deleted)
        )
    )
    wait_until(lambda: ready_messages(harness)["stt_jobs_dlq"] == before + 3, "three dead letters", 20)
    consumer.wait_for_log("newer_message")
    harness.wait(harness.upload(clip))
    assert consumer.popen.poll() is None
    # a newer version's message is handed back for ever, so remove it
    consumer.kill()
    wait_until(lambda: ready_messages(harness)["stt_chunks"] == 1, "the message is in the queue", 20)
    with management(shared_rabbitmq) as client:
        for queue in ("stt_chunks", "stt_jobs_dlq"):
            client.delete(harness.queue_path(queue) + "/contents").raise_for_status()


async def publish_raw_bodies(harness: Harness, bodies: list[bytes], message: Message) -> None:
    async with harness.application() as app:
        assert isinstance(app.broker, RabbitMQBroker)
        await app.broker.start()
        await app.broker.publish(message)
        for body in bodies:
            await app.broker.publish_raw(QueueName.CHUNKS, body)
