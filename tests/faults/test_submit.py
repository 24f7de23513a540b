"""The API dies around its commit; the broker is away while people submit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.stage import Stage
from tests.servers.rabbitmq import LocalRabbitMQ

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


def send(here: Stage, clip: Path, key: str) -> httpx.Response:
    with clip.open("rb") as file:
        return here.service.client.post(
            "/api/v1/upload",
            files={"file": (clip.name, file)},
            data={"language": "en"},
            headers={"Idempotency-Key": key},
        )


def jobs(here: Stage) -> set[str]:
    return {str(row[0]) for row in here.sql("SELECT job_id FROM jobs")}


def test_api_killed_before_the_row(here: Stage, clip: Path) -> None:
    """No job, the orphaned object is collected, and the client's retry works."""
    here.service.kill("api")
    api = here.api("stored, no row")
    before = jobs(here)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(send, here, clip, "before-the-row")
        api.wait_reached()
        [(orphan,)] = here.sql("SELECT job_id FROM upload_intents WHERE key LIKE 'uploads/%'")
        assert here.objects(str(orphan))["uploads"] == 1
        api.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    assert jobs(here) == before
    here.collect()
    assert not here.objects(str(orphan))
    here.api()
    here.consumer()
    again = send(here, clip, "before-the-row")
    assert again.status_code == 200
    here.submitted.append(again.json()["job_id"])
    here.wait(again.json()["job_id"])


def test_api_killed_before_the_answer(here: Stage, clip: Path) -> None:
    """The job runs all the same, and the same Idempotency-Key finds it."""
    here.service.kill("api")
    api = here.api("committed, no answer")
    before = jobs(here)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(send, here, clip, "before-the-answer")
        api.wait_reached()
        api.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    [job_id] = jobs(here) - before
    here.submitted.append(job_id)
    here.api()
    here.consumer()
    here.wait(job_id)
    again = send(here, clip, "before-the-answer")
    assert (again.status_code, again.json()["job_id"]) == (200, job_id)
    assert jobs(here) - before == {job_id}


def test_fifty_submits_while_the_broker_is_down(here: Stage, clip: Path, broker_server: LocalRabbitMQ) -> None:
    broker_server.kill()
    with ThreadPoolExecutor(4) as threads:
        accepted = list(threads.map(lambda _: here.upload(clip), range(50)))
    assert len(set(accepted)) == 50
    assert here.process("api").said("publish_failed")
    broker_server.start()
    here.consumer(ENGINE="tests.integration.slow_engine")
    here.consumer(ENGINE="tests.integration.slow_engine")
    for job_id in accepted:
        here.wait(job_id)
