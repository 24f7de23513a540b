"""Dead letters in the hands of an operator: RabbitMQ's management API, its shovel, and our command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.service import ROOT
from tests.faults.harness import Harness
from tests.servers.base import wait_until
from tests.servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


@pytest.fixture
def management(harness: Harness, shared_rabbitmq: RabbitMQ) -> Management:
    """A management client with an empty dead-letter queue."""
    client = Management(harness, shared_rabbitmq)
    client.client.delete(harness.queue_path("stt_jobs_dlq") + "/contents").raise_for_status()
    return client


class Management:
    """A client of the API behind the buttons of RabbitMQ's management page."""

    def __init__(self, harness: Harness, server: RabbitMQ) -> None:
        self.harness = harness
        self.url = harness.service.environment["RABBITMQ_URL"]
        self.vhost = urlsplit(self.url).path.lstrip("/")
        self.client = httpx.Client(base_url=server.management, timeout=20)

    def dead_letters(self) -> list[dict[str, Any]]:
        """Get messages and requeue them."""
        body = {"count": 50, "ackmode": "ack_requeue_true", "encoding": "auto"}
        answer = self.client.post(self.harness.queue_path("stt_jobs_dlq") + "/get", json=body)
        answer.raise_for_status()
        entries: list[dict[str, Any]] = answer.json()
        return entries

    def dead_letter_of(self, job_id: str) -> dict[str, Any]:
        wait_until(
            lambda: any(job_id in dead_letter["payload"] for dead_letter in self.dead_letters()),
            "the dead letter is in the queue",
            30,
        )
        return next(dead_letter for dead_letter in self.dead_letters() if job_id in dead_letter["payload"])

    def move(self, target: str) -> None:
        """Move all messages with a shovel that ends when the queue is empty."""
        value = {
            "src-protocol": "amqp091",
            "src-uri": self.url,
            "src-queue": "stt_jobs_dlq",
            "src-delete-after": "queue-length",
            "dest-protocol": "amqp091",
            "dest-uri": self.url,
            "dest-queue": target,
            "dest-add-forward-headers": False,
            "ack-mode": "on-confirm",
        }
        self.client.put(f"/api/parameters/shovel/{self.vhost}/Move", json={"value": value}).raise_for_status()

    def publish(self, dead_letter: dict[str, Any], target: str) -> None:
        """Publish a copy of the entry."""
        body = {
            "properties": dead_letter["properties"],
            "routing_key": target,
            "payload": dead_letter["payload"],
            "payload_encoding": dead_letter["payload_encoding"],
        }
        answer = self.client.post(f"/api/exchanges/{self.vhost}/stt/publish", json=body)
        assert answer.json() == {"routed": True}


def failed_job(harness: Harness, long_recording: tuple[Path, str]) -> str:
    """Return a job whose second chunk failed for good and whose other chunks completed; its consumer is killed."""
    consumer = harness.consumer("fails its second chunk")
    job_id = harness.upload(long_recording[0])
    assert harness.wait(job_id, "FAILED")["error_code"] == "WORKER_CRASH"
    wait_until(lambda: len(harness.attempts(job_id)) >= 1, "the first chunk is completed", 20)
    consumer.kill()
    return job_id


@pytest.mark.parametrize("target", ["stt_jobs", "stt_chunks"])
def test_a_job_replayed_by_shovel_runs_only_its_unfinished_chunks(
    harness: Harness, long_recording: tuple[Path, str], management: Management, target: str
) -> None:
    job_id = failed_job(harness, long_recording)
    headers = management.dead_letter_of(job_id)["properties"]["headers"]
    assert headers["job"] == job_id
    assert (headers["chunk"], headers["attempts"], headers["code"]) == (1, 4, "WORKER_CRASH")
    assert headers["message"]
    assert headers["first_failure"] < headers["last_failure"]
    finished = harness.attempts(job_id)
    harness.consumer()
    management.move(target)
    wait_until(lambda: harness.service.status(job_id)["status"] != "FAILED", "the job is reopened", 30)
    harness.wait(job_id)
    after = harness.attempts(job_id)
    assert {index: after[index] for index in finished} == finished, "a completed chunk was transcribed again"
    assert not management.dead_letters()


def test_a_dead_letter_returned_twice_is_replayed_once(
    harness: Harness, long_recording: tuple[Path, str], management: Management
) -> None:
    job_id = failed_job(harness, long_recording)
    dead_letter = management.dead_letter_of(job_id)
    consumer = harness.consumer("fails its second chunk")
    management.publish(dead_letter, "stt_chunks")
    management.publish(dead_letter, "stt_jobs")
    management.move("stt_jobs")
    wait_until(lambda: len(consumer.log_entries("replay_stale")) == 2, "two stale copies are dropped", 30)
    assert len(consumer.log_entries("replayed")) == 1
    harness.wait(job_id, "FAILED")
    # reopened once, it fails again and leaves one new dead letter with another token
    assert management.dead_letter_of(job_id)["payload"] != dead_letter["payload"]
    assert harness.sql(f"SELECT retry_count FROM jobs WHERE job_id = '{job_id}'") == [(6,)]
    assert "1 dead letters removed" in run_dlq(harness, "purge", job_id)


@pytest.mark.usefixtures("management")
def test_dead_letters_are_replayed_and_purged_by_command(harness: Harness, tmp_path: Path) -> None:
    """A replayed job fails again, once; a purge removes its dead letter and leaves the job FAILED."""
    harness.consumer()
    path = tmp_path / "text.mp3"
    path.write_bytes(b"no sound at all " * 1000)
    job_id = harness.upload(path)
    harness.wait(job_id, "FAILED")
    wait_until(lambda: job_id in run_dlq(harness, "list"), "the dead letter is listed", 20)
    assert "INVALID_AUDIO" in run_dlq(harness, "show", job_id)
    assert "1 reopened" in run_dlq(harness, "replay", job_id)
    wait_until(lambda: job_id in run_dlq(harness, "list"), "the job has failed again", 30)
    assert "1 dead letters removed" in run_dlq(harness, "purge", "all")
    assert "No dead letters" in run_dlq(harness, "list")
    assert "DEAD_LETTER_NOT_FOUND" in run_dlq(harness, "show", job_id)
    assert harness.service.status(job_id)["status"] == "FAILED"


def run_dlq(harness: Harness, *words: str) -> str:
    call = [sys.executable, "-m", "internal.cli", "dlq", *words]
    environment = {**harness.service.environment, "COLUMNS": "300"}
    completed = subprocess.run(call, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    return completed.stdout + completed.stderr
