"""Faults as an operator sees them, with the log lines and metrics of the table in docs/operations.md."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from minio import Minio as Client
from prometheus_client.parser import text_string_to_metric_families

from tests.documents.signs import Signs, signs_of
from tests.faults.harness import Harness, Process
from tests.servers.base import Server, free_port, get, wait_until
from tests.servers.rabbitmq import LocalRabbitMQ
from tests.speech import silence, write_wav

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(240)]
SLOW = ("consumer_lost",)
"""Logged only after 35 s without a heartbeat; tests/contract/test_lost_consumers.py has it."""


@dataclass
class Operator:
    """What an operator sees of one consumer, one scheduler and the API."""

    harness: Harness
    folder: Path
    ports: dict[str, int] = field(default_factory=lambda: {"consumer": free_port(), "scheduler": free_port()})
    processes: dict[str, Process] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def start(self, temp_dir: Path | None = None) -> None:
        service = self.harness.service
        self.processes["consumer"] = self.harness.consumer(
            CONSUMER_METRICS_PORT=str(self.ports["consumer"]),
            TEMP_DIR=str(temp_dir or service.environment["TEMP_DIR"]),
        )
        name = f"scheduler-{self.folder.name}"
        service.start(name, "scheduler", SCHEDULER_METRICS_PORT=str(self.ports["scheduler"]))
        self.processes["scheduler"] = Process(service, name, self.folder)
        self.processes["api"] = Process(service, "api", self.folder)
        wait_until(lambda: "stt_sample_timestamp_seconds{}" in self.scrape("scheduler"), "figures", 30)

    def scrape(self, process: str) -> dict[str, float]:
        """Return the samples of a process, by name and labels."""
        address = f"http://127.0.0.1:{self.ports[process]}" if process in self.ports else self.harness.service.url
        families = text_string_to_metric_families(get(f"{address}/metrics", 5).text)
        samples = [sample for family in families for sample in family.samples]
        return {f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value for sample in samples}

    def all_figures(self) -> dict[str, float]:
        return {f"{name} {key}": value for name in (*self.ports, "api") for key, value in self.scrape(name).items()}

    def note(self) -> None:
        """Note what there is before the fault."""
        self.read = {name: len(process.log()) for name, process in self.processes.items()}
        self.figures = self.all_figures()

    def lines(self, process: str, action: str) -> list[dict[str, Any]]:
        text = self.processes[process].log()[self.read[process] :]
        entries = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
        return [entry for entry in entries if entry.get("action") == action]

    def changed(self, metric: str) -> bool:
        now = self.all_figures()
        return any(f" {metric}" in key and now.get(key) != self.figures.get(key) for key in {*now, *self.figures})

    def sees(self, signs: Signs) -> None:
        """Wait until the log lines are written and the metrics have changed."""
        for process, actions in signs.actions.items():
            for action in set(actions) - set(SLOW):
                wait_until(lambda: bool(self.lines(process, action)), f"{process} says {action}", 45)  # noqa: B023
        for metric in signs.metrics:
            wait_until(lambda: self.changed(metric), f"{metric} changes", 45)  # noqa: B023

    def code(self, process: str, action: str) -> str:
        return str(self.lines(process, action)[0]["code"])


@pytest.fixture
def operator(harness: Harness, tmp_path: Path) -> Iterator[Operator]:
    operator = Operator(harness, tmp_path)
    yield operator
    if "scheduler" in operator.processes:
        operator.processes["scheduler"].stop()


def test_a_killed_consumer(operator: Operator, long_recording: tuple[Path, str]) -> None:
    operator.start()
    operator.note()
    operator.harness.upload(long_recording[0])
    consumer = operator.processes["consumer"]
    consumer.wait_for_log("prepared")
    scraped = operator.scrape("consumer")
    consumer.kill()
    operator.ports.pop("consumer")
    signs = signs_of("a consumer is killed")
    operator.figures = {key: value for key, value in operator.figures.items() if not key.startswith("consumer")}
    assert scraped
    for action in set(signs.actions["scheduler"]) - set(SLOW):
        schedulers = [operator.processes["scheduler"], *map(operator.harness.process, ("scheduler", "scheduler-2"))]
        wait_until(lambda: any(each.log_entries(action) for each in schedulers), action, 45)  # noqa: B023
    operator.harness.consumer()


def test_a_killed_engine_process(operator: Operator, long_recording: tuple[Path, str]) -> None:
    operator.start()
    operator.note()
    job_id = operator.harness.upload(long_recording[0])
    consumer = operator.processes["consumer"]
    consumer.wait_for_log("prepared")
    children = psutil.Process(consumer.popen.pid).children(recursive=True)
    busy = max(children, key=lambda child: child.memory_info().rss)
    busy.kill()
    operator.sees(signs_of("an engine process is killed"))
    operator.harness.wait(job_id)


def test_rabbitmq_down(operator: Operator, broker_server: LocalRabbitMQ, clip: Path) -> None:
    operator.start()
    operator.note()
    broker_server.kill()
    job_id = operator.harness.upload(clip)
    operator.sees(signs_of("RabbitMQ is down"))
    assert operator.code("scheduler", "round_skipped") == "BROKER_UNAVAILABLE"
    broker_server.start()
    operator.harness.wait(job_id)
    assert operator.lines("consumer", "reconnected")


def test_postgresql_down(operator: Operator, database_server: Server) -> None:
    operator.start()
    operator.note()
    database_server.kill()
    assert operator.harness.service.client.get("/api/v1/jobs").status_code == 503
    operator.sees(signs_of("PostgreSQL is down"))
    assert operator.code("consumer", "round_skipped") == "DATABASE_UNAVAILABLE"
    assert "DATABASE_UNAVAILABLE" in {line.get("code") for line in operator.lines("api", "request")}
    database_server.start()
    wait_until(lambda: bool(operator.lines("consumer", "rounds_continue")), "rounds continue", 40)


def test_minio_down(operator: Operator, storage_server: Server, long_recording: tuple[Path, str]) -> None:
    operator.start()
    operator.note()
    job_id = operator.harness.upload(long_recording[0])
    storage_server.kill()
    with long_recording[0].open("rb") as file:
        refused = operator.harness.service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert refused.status_code == 503
    operator.sees(signs_of("MinIO is down"))
    assert operator.code("consumer", "waiting") == "STORAGE_UNAVAILABLE"
    assert "STORAGE_UNAVAILABLE" in {line.get("code") for line in operator.lines("api", "request")}
    storage_server.start()
    operator.harness.wait(job_id)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(operator: Operator, tmp_path: Path) -> None:
    recording = write_wav(tmp_path / "big.wav", silence(120) + 3000)
    with small_disk(tmp_path / "small") as small:
        operator.start(small)
        operator.note()
        jobs = [operator.harness.upload(recording) for _ in range(3)]
        (small / "filler").write_bytes(bytes(100_000))
        operator.sees(signs_of("is full"))
        assert operator.code("consumer", "consumer_sick") == "DISK_FULL"
        assert "DISK_FULL" in json.dumps(operator.harness.service.client.get("/health").json()["workers_sick"])
        operator.processes["consumer"].kill()
    operator.harness.consumer()
    for job_id in jobs:
        operator.harness.wait(job_id)


def test_a_damaged_recording(operator: Operator, tmp_path: Path) -> None:
    operator.start()
    operator.note()
    broken = tmp_path / "broken.mp3"
    broken.write_bytes(b"no audio at all" * 100)
    job_id = operator.harness.upload(broken)
    operator.sees(signs_of("a recording is damaged"))
    assert operator.code("consumer", "job_failed") == "INVALID_AUDIO"
    operator.harness.wait(job_id, "FAILED")


def test_a_lost_object(operator: Operator, clip: Path) -> None:
    service = operator.harness.service
    job_id = service.upload(clip, language="en")  # the harness expects the recordings of its own jobs to be there
    environment = service.environment
    client = Client(
        environment["MINIO_ENDPOINT"], environment["MINIO_ACCESS_KEY"], environment["MINIO_SECRET_KEY"], secure=False
    )
    bucket = environment["MINIO_BUCKET"]
    (stored,) = client.list_objects(bucket, f"uploads/{job_id}/", recursive=True)
    client.remove_object(bucket, str(stored.object_name))
    operator.start()
    operator.read["consumer"] = 0
    operator.sees(signs_of("an object is lost"))
    assert operator.code("consumer", "job_failed") == "OBJECT_NOT_FOUND"
    assert service.wait(job_id)["status"] == "FAILED"
