"""A broker or a storage that comes back without its data, as after a lost disk."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from minio import Minio as Client

from tests.e2e.service import ROOT, Service
from tests.faults.harness import Harness
from tests.faults.test_broker import ready_messages
from tests.servers.base import Server, get, wait_until
from tests.servers.minio import LocalMinio
from tests.servers.rabbitmq import LocalRabbitMQ, restore_vhost

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(600)]


def test_every_job_ends_on_a_broker_without_its_data(
    harness: Harness, clip: Path, long_recording: tuple[Path, str], broker_server: LocalRabbitMQ
) -> None:
    """Queues, exchanges, messages and the virtual host are gone; the database rebuilds what they held."""
    consumer = harness.consumer("mid-chunk")
    running = harness.upload(long_recording[0])
    consumer.wait_for_step()
    waiting = [harness.upload(clip) for _ in range(3)]
    wait_until(lambda: ready_messages(harness)["stt_chunks"] >= 1, "chunks wait in the queue", 60)
    broker_server.kill()
    shutil.rmtree(broker_server.folder / "mnesia")
    broker_server.start()
    restore_vhost(broker_server, harness.service.environment["RABBITMQ_URL"])
    for table in ("jobs", "chunks"):  # rows count as lost only if they were published more than half a minute ago
        harness.sql(f"UPDATE {table} SET updated_at = updated_at - interval '40 seconds'")
    consumer.release()
    for job_id in (running, *waiting):
        harness.wait(job_id)
    assert max(harness.attempts(running).values()) <= 2
    assert {"stt_jobs", "stt_chunks", "stt_fetch", "stt_finalise"} <= set(ready_messages(harness))


def test_a_storage_without_its_data_is_reported_and_fails_only_what_it_lost(
    harness: Harness, clip: Path, long_recording: tuple[Path, str], storage_server: Server
) -> None:
    """Without its bucket the storage counts as down and jobs wait; with an empty bucket each lost object has a code."""
    assert isinstance(storage_server, LocalMinio)
    service = harness.service
    consumer = harness.consumer("mid-chunk")
    completed, damaged, unprepared = (service.upload(path, language="en") for path in (clip, long_recording[0], clip))
    consumer.wait_for_step()
    consumer.release()
    service.wait(completed)
    consumer.stop()
    unfinished = [job_id for job_id in (damaged, unprepared) if service.status(job_id)["status"] != "COMPLETED"]
    assert damaged in unfinished
    storage_server.kill()
    shutil.rmtree(storage_server.folder / "data")
    storage_server.start()

    wait_until(lambda: _storage_state(service) == "down: STORAGE_UNAVAILABLE", "/health reports the lost bucket", 30)
    with clip.open("rb") as file:
        answer = service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    answer = service.client.get(f"/api/v1/result/{completed}")
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    finding = _doctor(service)
    assert finding["level"] == "failed"
    assert service.environment["MINIO_BUCKET"] in finding["text"]

    environment = service.environment
    client = Client(
        environment["MINIO_ENDPOINT"], environment["MINIO_ACCESS_KEY"], environment["MINIO_SECRET_KEY"], secure=False
    )
    client.make_bucket(environment["MINIO_BUCKET"])
    wait_until(lambda: _storage_state(service) == "ok", "/health is ok", 30)
    finding = _doctor(service)
    assert (finding["level"], "stt restore" in finding["remedy"]) == ("failed", True), finding
    harness.consumer()
    states = {job_id: service.wait(job_id) for job_id in unfinished}
    assert states[damaged]["status"] == "FAILED"
    failed = [state for state in states.values() if state["status"] == "FAILED"]  # others had all their text
    assert {state["error_code"] for state in failed} <= {"SOURCE_NOT_FOUND", "OBJECT_DAMAGED"}
    answer = service.client.get(f"/api/v1/result/{completed}")
    assert (answer.status_code, answer.json()["code"]) == (404, "OBJECT_NOT_FOUND")
    assert service.transcribe(clip, language="en")["text"], "what is submitted from now on is not affected"


def _storage_state(service: Service) -> str:
    return str(get(f"{service.url}/health", 5).json()["checks"]["storage"])


def _doctor(service: Service) -> dict[str, str]:
    """Return the finding of `stt doctor` on the storage."""
    call = [sys.executable, "-m", "internal.cli", "doctor", "--json"]
    done = subprocess.run(call, env=service.environment, cwd=ROOT, check=False, capture_output=True, text=True)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return next(finding for finding in findings if finding["check"] == "storage")
