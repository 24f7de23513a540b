"""The API dies around its commit; the broker is away while people submit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.harness import Harness
from tests.servers.rabbitmq import LocalRabbitMQ

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


def send(harness: Harness, clip: Path, key: str) -> httpx.Response:
    with clip.open("rb") as file:
        return harness.service.client.post(
            "/api/v1/upload",
            files={"file": (clip.name, file)},
            data={"language": "en"},
            headers={"Idempotency-Key": key},
        )


def jobs(harness: Harness) -> set[str]:
    return {str(row[0]) for row in harness.sql("SELECT job_id FROM jobs")}


def test_api_killed_before_the_row(harness: Harness, clip: Path) -> None:
    """No job, the orphaned object is collected, and the client's retry works."""
    harness.service.kill("api")
    api = harness.api("stored, no row")
    before = jobs(harness)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(send, harness, clip, "before-the-row")
        api.wait_reached()
        [(orphan,)] = harness.sql("SELECT job_id FROM upload_intents WHERE key LIKE 'uploads/%'")
        assert harness.objects(str(orphan))["uploads"] == 1
        api.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    assert jobs(harness) == before
    harness.collect()
    assert not harness.objects(str(orphan))
    harness.api()
    harness.consumer()
    again = send(harness, clip, "before-the-row")
    assert again.status_code == 200
    harness.submitted.append(again.json()["job_id"])
    harness.wait(again.json()["job_id"])


def test_api_killed_before_the_answer(harness: Harness, clip: Path) -> None:
    """The job runs all the same, and the same Idempotency-Key finds it."""
    harness.service.kill("api")
    api = harness.api("committed, no answer")
    before = jobs(harness)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(send, harness, clip, "before-the-answer")
        api.wait_reached()
        api.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    [job_id] = jobs(harness) - before
    harness.submitted.append(job_id)
    harness.api()
    harness.consumer()
    harness.wait(job_id)
    again = send(harness, clip, "before-the-answer")
    assert (again.status_code, again.json()["job_id"]) == (200, job_id)
    assert jobs(harness) - before == {job_id}


def test_fifty_submits_while_the_broker_is_down(harness: Harness, clip: Path, broker_server: LocalRabbitMQ) -> None:
    broker_server.kill()
    with ThreadPoolExecutor(4) as threads:
        accepted = list(threads.map(lambda _: harness.upload(clip), range(50)))
    assert len(set(accepted)) == 50
    assert harness.process("api").said("publish_failed")
    broker_server.start()
    harness.consumer(ENGINE="tests.integration.slow_engine")
    harness.consumer(ENGINE="tests.integration.slow_engine")
    for job_id in accepted:
        harness.wait(job_id)
