"""Webhooks, verified with the `standardwebhooks` package by a receiver that fails at times."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from core.secret import Secret
from tests.clients.external_server import SAMPLE, ExternalServer
from tests.e2e.service import Service
from tests.servers.base import wait_until

pytestmark = [pytest.mark.speech, pytest.mark.timeout(240)]


def verifier(service: Service) -> Webhook:
    """Return a verifier with the secret that `stt keys create` prints."""
    secret = Secret("", Path(service.environment["DATA_DIR"]))
    return Webhook(secret.webhook_secret("local"))


def new_path() -> str:
    return f"/hook/{uuid.uuid4().hex}"


def test_a_completed_job_sends_a_webhook(service: Service, external_server: ExternalServer) -> None:
    path = new_path()
    metadata = json.dumps({"video": "7577034049470926087"})
    job_id = service.upload(SAMPLE, language="en", callback_url=external_server.url(path), metadata=metadata)
    [webhook] = external_server.wait_received(path)
    body = verifier(service).verify(webhook.body, webhook.headers)
    assert body["type"] == "transcription.completed"
    data = body["data"]
    assert (data["job_id"], data["status"], data["metadata"]) == (job_id, "COMPLETED", json.loads(metadata))
    assert service.client.get(data["result_url"]).status_code == 200


def test_a_failed_job_sends_a_webhook(service: Service, external_server: ExternalServer, tmp_path: Path) -> None:
    path, nonsense = new_path(), tmp_path / "nonsense.mp3"
    nonsense.write_bytes(b"no sound at all " * 500)
    service.upload(nonsense, callback_url=external_server.url(path))
    [webhook] = external_server.wait_received(path)
    body = verifier(service).verify(webhook.body, webhook.headers)
    assert (body["type"], body["data"]["error_code"]) == ("transcription.failed", "INVALID_AUDIO")


def test_a_failed_delivery_is_retried_with_the_same_id(service: Service, external_server: ExternalServer) -> None:
    path = new_path()
    external_server.statuses[path] = [500]
    service.upload(SAMPLE, language="en", callback_url=external_server.url(path))
    first, second = external_server.wait_received(path, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert verifier(service).verify(second.body, second.headers)


def test_410_ends_the_retries_until_delivery_is_requested_again(
    service: Service, external_server: ExternalServer
) -> None:
    path = new_path()
    external_server.statuses[path] = [410]
    job_id = service.upload(SAMPLE, language="en", callback_url=external_server.url(path))
    external_server.wait_received(path)
    wait_until(lambda: "webhook_given_up" in service.logs(), "the webhook is given up", 10)
    assert service.client.post(f"/api/v1/jobs/{job_id}/webhook").status_code == 202
    first, second = external_server.wait_received(path, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_redirect_counts_as_a_failed_delivery(service: Service, external_server: ExternalServer) -> None:
    path = new_path()
    external_server.statuses[path] = [302, 200]
    service.upload(SAMPLE, language="en", callback_url=external_server.url(path))
    assert len(external_server.wait_received(path, 2)) == 2


def test_redelivery_without_a_callback_url_is_a_conflict(service: Service) -> None:
    job_id = service.upload(SAMPLE, language="en")
    service.wait(job_id)
    answer = service.client.post(f"/api/v1/jobs/{job_id}/webhook")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://169.254.169.254/", "ftp://example.com/", "nonsense"])
def test_forbidden_callback_urls_are_rejected_at_submit(service: Service, url: str) -> None:
    with SAMPLE.open("rb") as file:
        answer = service.client.post("/api/v1/upload", files={"file": file}, data={"callback_url": url})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "callback_url")
