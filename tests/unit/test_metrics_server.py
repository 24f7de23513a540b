"""The port on which a process serves its metrics."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from core import metrics_values
from internal.metrics_server import MAX_REQUESTS, MetricsServer
from tests.e2e.service import ROOT
from tests.servers.base import free_port


@pytest.fixture
def served() -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("seen_total", "Things seen", registry=registry).inc(3)
    port = free_port()
    server = MetricsServer("127.0.0.1", port, registry)
    server.start()
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_it_serves_the_metrics_and_nothing_else(served: str) -> None:
    for query in ("", "?name[]=other", "?x=%00"):
        answer = httpx.get(f"{served}/metrics{query}")
        assert "seen_total 3.0" in answer.text
        assert answer.headers["content-type"].startswith("text/plain; version=")
    for path in ("/", "/metrics/", "/../metrics2"):
        assert httpx.get(served + path).status_code == 404
    assert httpx.post(f"{served}/metrics", content=b"x").status_code == 501
    assert httpx.get(f"{served}/metrics", headers={"X": "y" * 70_000}).status_code == 431


def test_silent_clients_hold_a_limited_number_of_threads(served: str) -> None:
    port = int(served.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(MAX_REQUESTS)]
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{served}/metrics")
    for connection in silent:
        connection.close()


def test_a_port_in_use_stops_nothing(served: str) -> None:
    second = MetricsServer("127.0.0.1", int(served.rpartition(":")[2]), CollectorRegistry())
    second.start()
    second.stop()
    assert "seen_total" in httpx.get(f"{served}/metrics").text


def test_port_0_serves_nothing() -> None:
    server = MetricsServer("nowhere.invalid", 0, CollectorRegistry())
    server.start()
    server.stop()


WORKER = """
import sys
from core.metrics import ROUNDS
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
ROUNDS.labels("a", "ok").inc()
samples = [sample for family in MultiProcessCollector(None).collect() for sample in family.samples]
print([sample.value for sample in samples if sample.labels.get("task") == "a"], flush=True)
sys.stdin.read()
"""


def worker() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_processes_share_their_values_and_a_replacement_continues_them() -> None:
    with metrics_values.shared_by_children(), worker() as first:
        assert line(first) == "[1.0]"
        with worker() as second:
            assert line(second) == "[2.0]"
            second.kill()
        with worker() as replacement:
            assert line(replacement) == "[3.0]"
            replacement.kill()
        first.kill()
    assert not metrics_values.shared()
