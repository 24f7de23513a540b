"""Dead letters as an operator meets them: in RabbitMQ's management API, moved back with its shovel, or by command."""

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
def rabbit(harness: Harness, shared_rabbitmq: RabbitMQ) -> Rabbit:
    """With no letters yet."""
    found = Rabbit(harness, shared_rabbitmq)
    found.client.delete(harness.queue("stt_jobs_dlq") + "/contents").raise_for_status()
    return found


class Rabbit:
    """What the management page's buttons call."""

    def __init__(self, harness: Harness, server: RabbitMQ) -> None:
        self.harness = harness
        self.url = harness.service.environment["RABBITMQ_URL"]
        self.vhost = urlsplit(self.url).path.lstrip("/")
        self.client = httpx.Client(base_url=server.management, timeout=20)

    def letters(self) -> list[dict[str, Any]]:
        """Get messages, with requeue: they stay."""
        wish = {"count": 50, "ackmode": "ack_requeue_true", "encoding": "auto"}
        answer = self.client.post(self.harness.queue("stt_jobs_dlq") + "/get", json=wish)
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def letter_of(self, job_id: str) -> dict[str, Any]:
        wait_until(lambda: any(job_id in letter["payload"] for letter in self.letters()), "the letter is there", 30)
        return next(letter for letter in self.letters() if job_id in letter["payload"])

    def move(self, target: str) -> None:
        """Move messages: a shovel that ends when the queue is empty."""
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

    def publish(self, letter: dict[str, Any], target: str) -> None:
        """A copy, by hand."""
        wish = {
            "properties": letter["properties"],
            "routing_key": target,
            "payload": letter["payload"],
            "payload_encoding": letter["payload_encoding"],
        }
        answer = self.client.post(f"/api/exchanges/{self.vhost}/stt/publish", json=wish)
        assert answer.json() == {"routed": True}


def failed(harness: Harness, long_recording: tuple[Path, str]) -> str:
    """A job whose second chunk failed for good, its others finished; that consumer is gone."""
    consumer = harness.consumer("fails its second chunk")
    job_id = harness.upload(long_recording[0])
    assert harness.wait(job_id, "FAILED")["error_code"] == "WORKER_CRASH"
    wait_until(lambda: len(harness.attempts(job_id)) >= 1, "the first is finished", 20)
    consumer.kill()
    return job_id


@pytest.mark.parametrize("target", ["stt_jobs", "stt_chunks"])
def test_moved_back_by_shovel_it_runs_what_is_missing(
    harness: Harness, long_recording: tuple[Path, str], rabbit: Rabbit, target: str
) -> None:
    job_id = failed(harness, long_recording)
    headers = rabbit.letter_of(job_id)["properties"]["headers"]
    assert headers["job"] == job_id
    assert (headers["chunk"], headers["attempts"], headers["code"]) == (1, 4, "WORKER_CRASH")
    assert headers["message"]
    assert headers["first_failure"] < headers["last_failure"]
    finished = harness.attempts(job_id)
    harness.consumer()
    rabbit.move(target)
    wait_until(lambda: harness.service.status(job_id)["status"] != "FAILED", "it is taken up again", 30)
    harness.wait(job_id)
    after = harness.attempts(job_id)
    assert {index: after[index] for index in finished} == finished, "a finished chunk was heard again"
    assert not rabbit.letters()


def test_moved_back_twice_it_is_replayed_once(
    harness: Harness, long_recording: tuple[Path, str], rabbit: Rabbit
) -> None:
    job_id = failed(harness, long_recording)
    letter = rabbit.letter_of(job_id)
    consumer = harness.consumer("fails its second chunk")
    rabbit.publish(letter, "stt_chunks")
    rabbit.publish(letter, "stt_jobs")
    rabbit.move("stt_jobs")
    wait_until(lambda: len(consumer.said("replay_stale")) == 2, "two stale copies", 30)
    assert len(consumer.said("replayed")) == 1
    harness.wait(job_id, "FAILED")
    # reopened once, it fails once more and leaves one new letter with another token
    assert rabbit.letter_of(job_id)["payload"] != letter["payload"]
    assert harness.sql(f"SELECT retry_count FROM jobs WHERE job_id = '{job_id}'") == [(6,)]
    assert "1 dead letters removed" in stt(harness, "purge", job_id)


@pytest.mark.usefixtures("rabbit")
def test_by_command(harness: Harness, tmp_path: Path) -> None:
    """Replayed it fails again, once; purged it is gone and the job stays FAILED."""
    harness.consumer()
    path = tmp_path / "text.mp3"
    path.write_bytes(b"no sound at all " * 1000)
    job_id = harness.upload(path)
    harness.wait(job_id, "FAILED")
    wait_until(lambda: job_id in stt(harness, "list"), "the letter is there", 20)
    assert "INVALID_AUDIO" in stt(harness, "show", job_id)
    assert "1 reopened" in stt(harness, "replay", job_id)
    wait_until(lambda: job_id in stt(harness, "list"), "it failed again", 30)
    assert "1 dead letters removed" in stt(harness, "purge", "all")
    assert "No dead letters" in stt(harness, "list")
    assert "No dead letter of job" in stt(harness, "show", job_id)
    assert harness.service.status(job_id)["status"] == "FAILED"


def stt(harness: Harness, *words: str) -> str:
    call = [sys.executable, "-m", "internal.cli.main", "dlq", *words]
    environment = {**harness.service.environment, "COLUMNS": "300"}
    done = subprocess.run(call, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
