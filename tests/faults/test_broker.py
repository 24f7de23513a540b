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
from core.messaging.port import Message, MessageType, QueueName
from core.messaging.rabbitmq import RabbitMQBroker
from internal.services import publishing
from repositories import jobs
from repositories.claims import Released
from repositories.jobs import NewJob
from repositories.models import Job
from tests.faults.stage import Stage
from tests.servers.base import wait_until
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import LocalRabbitMQ, RabbitMQ
from tests.speech import silence, write_wav

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(600)]
BACKLOG = 1000


def management(server: RabbitMQ) -> httpx.Client:
    return httpx.Client(base_url=server.management, timeout=20)


def ready(here: Stage) -> dict[str, int]:
    """Messages that wait, by queue."""

    async def ask() -> dict[str, int]:
        async with here.parts() as parts:
            await parts.broker.start()
            return {row.name: row.ready for row in await parts.broker.stats()}

    return asyncio.run(ask())


@pytest.mark.parametrize("lost", ["queue", "exchange", "content"])
def test_what_waited_in_the_broker_is_gone(here: Stage, clip: Path, shared_rabbitmq: RabbitMQ, lost: str) -> None:
    """A deleted queue or exchange is declared again, and what was lost with it is published again."""
    job_id = here.upload(clip)
    wait_until(lambda: ready(here)["stt_jobs"] >= 1, "the wake-up waits", 20)
    vhost = here.queue("").split("/")[3]
    path = {
        "queue": here.queue("stt_jobs"),
        "exchange": f"/api/exchanges/{vhost}/stt",
        "content": here.queue("stt_jobs") + "/contents",
    }[lost]
    with management(shared_rabbitmq) as client:
        client.delete(path).raise_for_status()
    second = here.upload(clip)
    # what is seen lost has been published over half a minute ago
    here.sql("UPDATE jobs SET updated_at = updated_at - interval '40 seconds'")
    wait_until(lambda: ready(here)["stt_jobs"] >= 1, "published again", 60)
    here.consumer()
    here.wait(job_id)
    here.wait(second)


def test_submits_survive_a_memory_alarm(here: Stage, clip: Path, broker_server: LocalRabbitMQ) -> None:
    consumer = here.consumer()
    here.wait(here.upload(clip))
    broker_server.control("set_vm_memory_high_watermark", "0")
    try:
        accepted = [here.upload(clip) for _ in range(5)]
    finally:
        broker_server.control("set_vm_memory_high_watermark", "0.6")
    for job_id in accepted:
        here.wait(job_id)
    assert consumer.popen.poll() is None


def test_killed_mid_job(here: Stage, long: tuple[Path, str], broker_server: LocalRabbitMQ) -> None:
    """What was in flight runs at most once more."""
    consumer = here.consumer("mid-chunk")
    job_id = here.upload(long[0])
    consumer.wait_reached()
    broker_server.kill()
    meanwhile = here.upload(long[0])
    broker_server.start()
    consumer.let_go()
    here.wait(job_id)
    here.wait(meanwhile)
    assert max(here.attempts(job_id).values()) <= 2


def test_restarted_mid_job(here: Stage, long: tuple[Path, str], broker_server: LocalRabbitMQ) -> None:
    consumer = here.consumer("mid-chunk")
    job_id = here.upload(long[0])
    consumer.wait_reached()
    broker_server.restart()
    consumer.let_go()
    here.wait(job_id)
    assert max(here.attempts(job_id).values()) <= 2


def test_killed_with_a_backlog(here: Stage, tmp_path: Path, broker_server: LocalRabbitMQ) -> None:
    """A thousand waiting jobs are neither lost nor published all over again."""
    with here.schedulers_paused():  # on a busy machine rows become due before all of them are published
        found = asyncio.run(backlog(here, write_wav(tmp_path / "short.wav", silence(0.2)).read_bytes()))
        assert ready(here)["stt_jobs"] == BACKLOG
    broker_server.kill()
    broker_server.start()
    wait_until(lambda: ready(here)["stt_jobs"] == BACKLOG, "durable", 30)
    here.consumer("decodes to silence")
    here.consumer("decodes to silence")
    open_jobs = "SELECT count(*) FROM jobs WHERE status IN ('PENDING', 'PROCESSING')"
    wait_until(lambda: here.sql(open_jobs)[0][0] == 0, "all have ended", 200)
    [(completed,)] = here.sql("SELECT count(*) FROM jobs WHERE owner = 'backlog' AND status = 'COMPLETED'")
    assert completed == len(found) == BACKLOG
    [(published,)] = here.sql("SELECT max(publishes) FROM jobs WHERE owner = 'backlog'")
    assert published <= 2, f"a waiting job was published {published} times"


async def backlog(here: Stage, sound: bytes) -> list[str]:
    """A thousand jobs of one small recording, published, as the API would."""
    async with here.parts() as parts:
        await parts.storage.start()
        await parts.broker.start()
        await parts.storage.put_bytes("uploads/shared/short.wav", sound)
        ids = [str(uuid.uuid4()) for _ in range(BACKLOG)]
        common = {"language": "en", "model": "demo-q5_0", "priority": Priority.NORMAL, "options": {}}
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
                messages = [publishing.prepare(job, Released(job.job_id, None, 0)) for job in rows]
            assert await parts.publisher.publish(messages)
        return ids


def test_a_silently_dropped_connection(here: Stage, long: tuple[Path, str], broker_server: LocalRabbitMQ) -> None:
    """Noticed by the missed heartbeats, within 35 s; the work goes on."""
    address = urlsplit(here.service.environment["RABBITMQ_URL"])
    assert address.port is not None
    line = Proxy("127.0.0.1", address.port)
    line.start()
    try:
        url = here.service.environment["RABBITMQ_URL"].replace(f":{address.port}", f":{line.port}")
        consumer = here.consumer("mid-chunk", RABBITMQ_URL=url)
        job_id = here.upload(long[0])
        consumer.wait_reached()
        line.go_silent()
        consumer.wait_said("reconnecting", 35)
        consumer.let_go()
        here.wait(job_id)
        consumer.kill()
    finally:
        line.stop()


def test_the_same_message_a_hundred_times_to_four_consumers(here: Stage, long: tuple[Path, str]) -> None:
    first = here.consumer("after planning")
    job_id = here.upload(long[0])
    first.wait_reached()
    [(chunks,)] = here.sql(f"SELECT chunks_total FROM jobs WHERE job_id = '{job_id}'")
    here.wake_ups(job_id, 100, tuple(range(chunks)))
    here.wake_ups(job_id, 100)
    others = [here.consumer(wait=False) for _ in range(3)]
    first.let_go()
    here.wait(job_id)
    wait_until(lambda: ready(here)["stt_chunks"] == 0, "all are answered", 60)
    for action, times in (("chunk_completed", chunks), ("job_completed", 1)):
        said = [line for one in (first, *others) for line in one.said(action) if line["job_id"] == job_id]
        assert len(said) == times


def test_messages_that_are_none_of_ours(here: Stage, clip: Path, shared_rabbitmq: RabbitMQ) -> None:
    """Dead-lettered; handed back with a delay; dropped. The consumer lives."""
    consumer = here.consumer()
    before = ready(here)["stt_jobs_dlq"]
    gone = here.upload(clip)
    here.wait(gone)
    assert here.service.client.delete(f"/api/v1/jobs/{gone}").status_code == 204
    newer = json.dumps({"v": 99, "type": "Prepare", "job_id": gone}).encode()
    asyncio.run(throw(here, [b"\xff\x00 nonsense", b"[]", b'{"v": 1}', newer], Message(MessageType.PREPARE, gone)))
    wait_until(lambda: ready(here)["stt_jobs_dlq"] == before + 3, "three dead letters", 20)
    consumer.wait_said("newer_message")
    here.wait(here.upload(clip))
    assert consumer.popen.poll() is None
    # a message of a newer version goes round until somebody reads it: take it out again
    consumer.kill()
    wait_until(lambda: ready(here)["stt_chunks"] == 1, "it is back", 20)
    with management(shared_rabbitmq) as client:
        for queue in ("stt_chunks", "stt_jobs_dlq"):
            client.delete(here.queue(queue) + "/contents").raise_for_status()


async def throw(here: Stage, bodies: list[bytes], message: Message) -> None:
    async with here.parts() as parts:
        assert isinstance(parts.broker, RabbitMQBroker)
        await parts.broker.start()
        await parts.broker.publish(message)
        for body in bodies:
            await parts.broker.publish_raw(QueueName.CHUNKS, body)
