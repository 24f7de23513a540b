"""Metrics of the separate processes of a real service, compared with docs/metrics.md."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.error_base import error_class
from core.messaging.port import MessageType, QueueName
from tests.documents import dashboards
from tests.documents.metrics import documented
from tests.e2e import service as services
from tests.e2e.service import ROOT, Service
from tests.servers.base import Unavailable, free_port, wait_until
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.prometheus import Prometheus
from tests.servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.servers, pytest.mark.speech]
WORKERS = 2
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass(frozen=True, slots=True)
class Observed:
    """A service of separate processes. addresses: of the metrics, by process."""

    service: Service
    addresses: dict[str, str]

    def text(self, process: str) -> str:
        return httpx.get(self.addresses[process], timeout=30).text

    def total(self, process: str, name: str, **labels: str) -> float:
        """Return the sum of the samples of a metric that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.text(process))
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@pytest.fixture(scope="module")
def own_stores(shared_postgres: Postgres, shared_rabbitmq: RabbitMQ, shared_minio: Minio) -> dict[str, str]:
    """Settings for stores that no other service uses, so that its consumer runs all jobs."""
    return services.stores_of(shared_postgres, shared_rabbitmq, shared_minio)


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory, own_stores: dict[str, str]) -> Iterator[Observed]:
    ports = {"consumer": free_port(), "scheduler": free_port()}
    settings = {f"{name.upper()}_METRICS_PORT": str(port) for name, port in ports.items()}
    folder = tmp_path_factory.mktemp("observed")
    with services.on_real_servers(folder, {**own_stores, **settings, "API_WORKERS": str(WORKERS)}) as service:
        addresses = {name: f"http://127.0.0.1:{port}/metrics" for name, port in ports.items()}
        addresses["api"] = f"{service.url}/metrics"
        service.transcribe(ROOT / "assets" / "samples" / "hello.en.mp3", language="en")
        broken = folder / "broken.mp3"
        broken.write_bytes(b"no audio at all" * 100)
        service.wait(service.upload(broken))
        yield Observed(service, addresses)


def test_every_metric_of_the_page_is_exported_by_its_process(observed: Observed) -> None:
    wait_until(lambda: observed.total("scheduler", "stt_sample_timestamp_seconds") > 0, "a sample")
    pages = {process: observed.text(process) for process in observed.addresses}
    exported: dict[str, set[str]] = {}
    for text in pages.values():
        for family in text_string_to_metric_families(text):
            if family.name.startswith("stt_"):
                name = family.name + ("_total" if family.type == "counter" else "")
                labels = exported.setdefault(name, set())
                labels.update(*(sample.labels for sample in family.samples if "_created" not in sample.name))
    sections = documented()
    names = {row.name for rows in sections.values() for row in rows}
    assert names == set(exported)
    for row in (row for rows in sections.values() for row in rows):
        # a metric without a sample yet has no labels
        assert exported[row.name] - {"le"} in (set(row.labels), set()), row.name
    for title, process in (("Consumers", "consumer"), ("Schedulers", "scheduler")):
        for row in sections[title]:
            assert f"# HELP {row.name} " in pages[process]
            assert f"# HELP {row.name} " not in pages["api"]


def test_names_and_labels_follow_the_conventions(observed: Observed) -> None:
    for rows in documented().values():
        for row in rows:
            assert re.fullmatch(r"stt_[a-z_]+", row.name)
            assert row.name.endswith("_total") == (row.kind == "counter")
            assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|percent)(_|$)", row.name)


def test_labels_have_bounded_values(observed: Observed) -> None:
    for number in range(20):
        observed.service.client.get(f"/made/up/{number}")
        observed.service.client.get(f"/api/v1/status/made-up-{number}")
    text = "".join(observed.text(process) for process in observed.addresses)
    assert "made" not in text
    values = {
        name: set(re.findall(rf'[{{,]{name}="([^"]*)"', text)) for name in ("error_code", "queue", "model", "step")
    }
    assert all(code == "" or error_class(code) for code in values["error_code"])
    assert values["queue"] <= {queue.value for queue in QueueName}
    assert values["model"] <= {"", "demo-q5_0"}
    assert {MessageType.PREPARE.value, MessageType.TRANSCRIBE.value, MessageType.FINALISE.value} <= values["step"]


def test_jobs_chunks_and_the_engine_are_counted(observed: Observed) -> None:
    ended = {"model": "demo-q5_0", "language": "en"}
    assert observed.total("consumer", "stt_jobs_ended_total", status="COMPLETED", **ended) >= 1
    assert observed.total("consumer", "stt_jobs_ended_total", status="FAILED", error_code="INVALID_AUDIO") >= 1
    assert observed.total("consumer", "stt_chunks_completed_total", **ended) >= 1
    audio = observed.total("consumer", "stt_engine_audio_seconds_total")
    assert 1 < audio <= 30 * observed.total("consumer", "stt_engine_encodes_total")
    assert observed.total("consumer", "stt_engine_cpu_seconds_total") > 0
    assert observed.total("consumer", "stt_engine_slots") >= 1
    assert observed.total("consumer", "stt_dependency_calls_total", dependency="storage", outcome="ok") > 0
    assert observed.total("consumer", "stt_process_memory_bytes") > 50e6
    assert observed.total("consumer", "stt_disk_free_bytes", folder="temp") > 0


def test_queues_and_workers_are_sampled(observed: Observed) -> None:
    def sampled() -> bool:
        workers = observed.total("scheduler", "stt_workers", state="healthy")
        return workers == 1 and observed.total("scheduler", "stt_queue_messages", queue="stt_jobs_dlq") >= 1

    wait_until(sampled, "a sample with the consumer and the dead letter")
    assert observed.total("scheduler", "stt_dependency_up") == 3
    assert observed.total("scheduler", "stt_queue_consumers", queue=QueueName.CHUNKS.value) == 1


def test_one_scrape_has_the_requests_of_all_workers(observed: Observed) -> None:
    def live_requests() -> float:
        return observed.total("api", "stt_http_requests_total", route="/live")

    before = live_requests()
    for _ in range(40):
        # a connection of its own for each request, so that both workers accept some
        assert httpx.get(f"{observed.service.url}/live").status_code == 200
    assert live_requests() == before + 40
    assert live_requests() == before + 40, "any worker returns the sum"


@pytest.mark.timeout(120)
def test_counters_survive_a_worker_that_is_replaced(observed: Observed) -> None:
    before = observed.total("api", "stt_http_requests_total")
    parent = psutil.Process(observed.service.processes["api"].pid)
    workers = [child for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == WORKERS
    workers[0].kill()

    def replaced() -> bool:
        now = [child.pid for child in parent.children() if "spawn_main" in " ".join(child.cmdline())]
        return len(now) == WORKERS and workers[0].pid not in now

    wait_until(replaced, "the worker is replaced")
    observed.service.wait_ready()
    assert observed.total("api", "stt_http_requests_total") > before


@pytest.fixture
def prometheus(observed: Observed) -> Iterator[Prometheus]:
    addresses = {name: url.removeprefix("http://").removesuffix("/metrics") for name, url in observed.addresses.items()}
    try:
        server = Prometheus(addresses)
    except Unavailable as reason:
        pytest.fail(str(reason)) if os.environ.get("CI") else pytest.skip(str(reason))
    server.start()
    yield server
    server.remove()


@pytest.mark.timeout(180)
def test_no_panel_of_a_dashboard_is_empty(observed: Observed, prometheus: Prometheus) -> None:
    queries = {
        f"{path.stem}: {panel['title']}": panel["targets"][0]["expr"].replace("$__rate_interval", "1m")
        for path in dashboards.FILES
        for panel in json.loads(path.read_text())["panels"]
    }
    assert len(queries) > 30
    # counters of jobs exist since the fixture; rates need increases that Prometheus sees
    wait_until(lambda: len(prometheus.query("stt_chunks_completed_total")) > 0, "the first scrapes")
    recording = ROOT / "assets" / "samples" / "hello.en.mp3"
    for job_id in [observed.service.upload(recording, language="en") for _ in range(6)]:
        assert observed.service.wait(job_id)["status"] == "COMPLETED"
    empty: dict[str, str] = {}

    def full() -> bool:
        nonlocal empty
        empty = {title: query for title, query in queries.items() if not prometheus.query(query)}
        return not empty

    with contextlib.suppress(TimeoutError):
        wait_until(full, "data in every panel", 45)
    assert not empty
    assert {rule["health"] for rule in prometheus.rules()} == {"ok"}
    assert not [rule["name"] for rule in prometheus.rules() if rule["state"] == "firing"]


def test_the_folder_of_shared_values_is_removed(tmp_path: Path, real_stores: dict[str, str]) -> None:
    (tmp_path / "tmp").mkdir()
    stores = {**real_stores, "API_WORKERS": "2", "TMPDIR": str(tmp_path / "tmp")}
    with services.on_real_servers(tmp_path, stores, ("api",)) as service:
        assert len(list((tmp_path / "tmp").glob("stt-metrics-*"))) == 1
        assert "stt_http_requests_total" in service.client.get("/metrics").text
    assert not list((tmp_path / "tmp").glob("stt-metrics-*"))
