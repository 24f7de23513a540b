"""Webhooks, verified with the `standardwebhooks` package by a receiver that is sometimes unwell."""

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
    """What `stt keys create` shows the owner."""
    secret = Secret("", Path(service.environment["DATA_DIR"]))
    return Webhook(secret.webhook_secret("local"))


def hook() -> str:
    return f"/hook/{uuid.uuid4().hex}"


def test_a_completed_job_is_told(service: Service, external_server: ExternalServer) -> None:
    path = hook()
    metadata = json.dumps({"video": "7577034049470926087"})
    job_id = service.upload(SAMPLE, language="en", callback_url=external_server.url(path), metadata=metadata)
    [told] = external_server.wait_received(path)
    body = verifier(service).verify(told.body, told.headers)
    assert body["type"] == "transcription.completed"
    data = body["data"]
    assert (data["job_id"], data["status"], data["metadata"]) == (job_id, "COMPLETED", json.loads(metadata))
    assert service.client.get(data["result_url"]).status_code == 200


def test_a_failed_job_is_told(service: Service, external_server: ExternalServer, tmp_path: Path) -> None:
    path, nonsense = hook(), tmp_path / "nonsense.mp3"
    nonsense.write_bytes(b"no sound at all " * 500)
    service.upload(nonsense, callback_url=external_server.url(path))
    [told] = external_server.wait_received(path)
    body = verifier(service).verify(told.body, told.headers)
    assert (body["type"], body["data"]["error_code"]) == ("transcription.failed", "INVALID_AUDIO")


def test_a_receiver_that_is_unwell_is_asked_again_with_the_same_id(
    service: Service, external_server: ExternalServer
) -> None:
    path = hook()
    external_server.answers[path] = [500]
    service.upload(SAMPLE, language="en", callback_url=external_server.url(path))
    first, second = external_server.wait_received(path, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert verifier(service).verify(second.body, second.headers)


def test_gone_means_no_more_and_asking_again_delivers(service: Service, external_server: ExternalServer) -> None:
    path = hook()
    external_server.answers[path] = [410]
    job_id = service.upload(SAMPLE, language="en", callback_url=external_server.url(path))
    external_server.wait_received(path)
    wait_until(lambda: "webhook_given_up" in service.logs(), "given up", 10)
    assert service.client.post(f"/api/v1/jobs/{job_id}/webhook").status_code == 202
    first, second = external_server.wait_received(path, 2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


def test_a_redirect_is_a_failure(service: Service, external_server: ExternalServer) -> None:
    path = hook()
    external_server.answers[path] = [302, 200]
    service.upload(SAMPLE, language="en", callback_url=external_server.url(path))
    assert len(external_server.wait_received(path, 2)) == 2


def test_without_a_callback_there_is_nothing_to_deliver(service: Service) -> None:
    job_id = service.upload(SAMPLE, language="en")
    service.wait(job_id)
    answer = service.client.post(f"/api/v1/jobs/{job_id}/webhook")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://169.254.169.254/", "ftp://example.com/", "nonsense"])
def test_callbacks_that_are_refused_at_once(service: Service, url: str) -> None:
    with SAMPLE.open("rb") as file:
        answer = service.client.post("/api/v1/upload", files={"file": file}, data={"callback_url": url})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "callback_url")
