"""API crashes around the commit of a submit, and submits while the broker is down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.harness import Harness
from tests.servers.rabbitmq import LocalRabbitMQ
from tests.speech import silence, write_wav

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


def upload(harness: Harness, clip: Path, key: str) -> httpx.Response:
    with clip.open("rb") as file:
        return harness.service.client.post(
            "/api/v1/upload",
            files={"file": (clip.name, file)},
            data={"language": "en"},
            headers={"Idempotency-Key": key},
        )


def job_ids(harness: Harness) -> set[str]:
    return {str(row[0]) for row in harness.sql("SELECT job_id FROM jobs")}


def test_an_api_crash_before_the_insert_leaves_no_job(harness: Harness, clip: Path) -> None:
    """No job exists, the orphaned object is collected, and the client's retry succeeds."""
    harness.service.kill("api")
    api = harness.api("stored, no row")
    before = job_ids(harness)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(upload, harness, clip, "before-the-row")
        api.wait_for_step()
        [(orphan,)] = harness.sql("SELECT job_id FROM upload_intents WHERE key LIKE 'uploads/%'")
        assert harness.objects(str(orphan))["uploads"] == 1
        api.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    assert job_ids(harness) == before
    harness.collect_abandoned()
    assert not harness.objects(str(orphan))
    harness.api()
    harness.consumer()
    retry = upload(harness, clip, "before-the-row")
    assert retry.status_code == 200
    harness.submitted.append(retry.json()["job_id"])
    harness.wait(retry.json()["job_id"])


def test_an_api_crash_after_the_commit_loses_no_job(harness: Harness, clip: Path) -> None:
    """The job runs, and a retry with the same Idempotency-Key finds it."""
    harness.service.kill("api")
    api = harness.api("committed, no answer")
    before = job_ids(harness)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(upload, harness, clip, "before-the-answer")
        api.wait_for_step()
        api.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    [job_id] = job_ids(harness) - before
    harness.submitted.append(job_id)
    harness.api()
    harness.consumer()
    harness.wait(job_id)
    retry = upload(harness, clip, "before-the-answer")
    assert (retry.status_code, retry.json()["job_id"]) == (200, job_id)
    assert job_ids(harness) - before == {job_id}


def test_fifty_submits_are_accepted_while_the_broker_is_down(
    harness: Harness, tmp_path: Path, broker_server: LocalRabbitMQ
) -> None:
    broker_server.kill()
    recording = write_wav(tmp_path / "silence.wav", silence(0.2))
    with ThreadPoolExecutor(4) as threads:
        accepted = list(threads.map(lambda _: harness.upload(recording), range(50)))
    assert len(set(accepted)) == 50
    assert harness.process("api").log_entries("publish_failed")
    broker_server.start()
    harness.consumer()
    harness.consumer()
    for job_id in accepted:
        harness.wait(job_id)
