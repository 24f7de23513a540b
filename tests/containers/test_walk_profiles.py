"""The profiles of the compose file: Prometheus and Alertmanager; HTTPS for uploads, event streams and upload links."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.containers.deployment import Deployment
from tests.containers.test_walk import WORDS
from tests.containers.test_walk import pytestmark as pytestmark
from tests.servers.base import wait_until

MONITORING = ("prometheus", "alertmanager")
PROCESSES = {"async-stt-api", "async-stt-consumer", "async-stt-scheduler"}
RECORDING_BYTES = 600_000_000
PUBLIC = {
    "MINIO_PUBLIC_ENDPOINT": "storage.localhost",
    "MINIO_PUBLIC_USE_SSL": "true",
    "MAX_UPLOAD_SIZE_MB": "2048",
    "PUBLIC_URL": "https://localhost",
}


def test_prometheus_scrapes_every_process_and_reports_to_alertmanager(deployment: Deployment) -> None:
    """With the real images Grafana is started as well; Debian has none, so tests/deploy only reads its files."""
    services = [*MONITORING, "grafana"] if deployment.real_images else [*MONITORING]
    deployment.compose("up", "--detach", "--wait", *services)
    try:
        with deployment.engine.client(9090) as prometheus, deployment.engine.client(9093) as alertmanager:

            def scraped() -> bool:
                targets = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
                return {target["labels"]["job"] for target in targets if target["health"] == "up"} == PROCESSES

            def connected() -> bool:
                return bool(prometheus.get("/api/v1/alertmanagers").json()["data"]["activeAlertmanagers"])

            wait_until(scraped, "every process is scraped")
            wait_until(connected, "Prometheus has found Alertmanager")
            loaded = prometheus.get("/api/v1/rules").json()["data"]["groups"]
            written = yaml.safe_load((deployment.folder / "deploy/prometheus/alerts.yaml").read_text())["groups"]
            assert [len(group["rules"]) for group in loaded] == [len(group["rules"]) for group in written]
            assert "operators" in alertmanager.get("/api/v2/status").json()["config"]["original"]
    finally:
        deployment.compose("rm", "--stop", "--force", *services)


@pytest.fixture(scope="module")
def secure(deployment: Deployment) -> Iterator[ssl.SSLContext]:
    """The service with its proxy; the context trusts the proxy's own authority only."""
    deployment.compose("up", "--detach", "--wait", "proxy", "api", "consumer", "scheduler", **PUBLIC)
    try:
        authority = "/data/caddy/pki/authorities/local/root.crt"
        yield ssl.create_default_context(cadata=deployment.compose("exec", "-T", "proxy", "cat", authority))
    finally:
        deployment.compose("rm", "--stop", "--force", "proxy")
        deployment.compose("up", "--detach", "--wait")
        deployment.wait_for(1)


def public(deployment: Deployment, secure: ssl.SSLContext, host: str = "localhost") -> httpx.Client:
    key = deployment.secret("API_KEY") if host == "localhost" else None
    return deployment.engine.client(443, key, url=f"https://{host}", trust=secure)


def test_the_api_is_served_by_https(deployment: Deployment, secure: ssl.SSLContext) -> None:
    with public(deployment, secure) as client:
        answer = client.get("/live")
        assert answer.status_code == 200
        assert "Strict-Transport-Security" in answer.headers
        assert client.get("/metrics").status_code == 404
        assert client.get("/api/v1/jobs", headers={"X-API-Key": "wrong"}).status_code == 401


def test_events_pass_the_proxy_while_the_job_waits(
    deployment: Deployment, secure: ssl.SSLContext, sample: Path
) -> None:
    deployment.compose("stop", "consumer")
    job_id = deployment.upload(sample)
    with (
        public(deployment, secure) as client,
        client.stream("GET", f"/api/v1/jobs/{job_id}/events", timeout=180) as stream,
    ):
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert "PENDING" in next(line for line in lines if line.startswith("data:"))
        deployment.compose("up", "--detach", "--wait", "--no-recreate", "consumer", **PUBLIC)
        assert any("COMPLETED" in line for line in lines)
    assert WORDS in deployment.text(job_id)


def test_an_upload_link_leads_to_the_storage_through_the_proxy(
    deployment: Deployment, secure: ssl.SSLContext, sample: Path
) -> None:
    with public(deployment, secure) as client, public(deployment, secure, "storage.localhost") as storage:
        link = client.post("/api/v1/uploads", json={"filename": sample.name, "language": "en"}).json()
        assert link["upload_url"].startswith("https://storage.localhost/")
        assert storage.get("/minio/health/live").status_code == 403
        assert storage.put(link["upload_url"], content=sample.read_bytes()).status_code == 200
        assert client.post(f"/api/v1/jobs/{link['job_id']}/start").status_code == 202
    assert WORDS in deployment.text(link["job_id"])


def silence(path: Path) -> Path:
    """Write an hour of silence as a WAV file, more than the default limit and than the memory of the proxy."""
    rate, frame = 48_000, 4
    head = struct.pack("<4sI4s4sIHHII", b"RIFF", 36 + RECORDING_BYTES, b"WAVE", b"fmt ", 16, 1, 2, rate, rate * frame)
    with path.open("wb") as file:
        file.write(head + struct.pack("<HH4sI", frame, 16, b"data", RECORDING_BYTES))
        file.truncate(44 + RECORDING_BYTES)
    return path


def test_a_large_recording_passes_the_proxy(deployment: Deployment, secure: ssl.SSLContext, tmp_path: Path) -> None:
    """Bodies are passed on as they arrive: the proxy has 256 MB of memory, and its root is read-only."""
    with public(deployment, secure) as client, silence(tmp_path / "silence.wav").open("rb") as body:
        answer = client.post("/api/v1/upload", files={"file": ("silence.wav", body)}, timeout=300)
        assert answer.status_code == 200, answer.text
        assert client.post(f"/api/v1/jobs/{answer.json()['job_id']}/cancel").status_code == 202
    (proxy,) = deployment.containers("proxy")
    assert proxy["State"]["OOMKilled"] is False
    assert proxy["RestartCount"] == 0
