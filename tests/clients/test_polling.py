"""Polling clients that submit a URL: one uses `requests`, one `httpx` and parses JSON before it checks the status."""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from minio import Minio as S3

from tests.clients.external_server import SAMPLE, ExternalServer
from tests.e2e.service import ROOT, Service
from tests.speech import word_error_rate

pytestmark = [pytest.mark.speech, pytest.mark.timeout(300)]
WORDS = (ROOT / "assets" / "samples" / "hello.en.txt").read_text()


class PollingClient:
    """A client with a timeout of ten seconds that formats numbers without checking for None."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/api/v1/transcribe"
        self.session = requests.Session()
        self.session.headers["X-API-Key"] = "anything"

    def submit(self, request_id: str, media_url: str, **more: Any) -> requests.Response:
        body = {"request_id": request_id, "media_url": media_url, "language": "en", **more}
        return self.session.post(self.url, json=body, timeout=10)

    def poll(self, request_id: str) -> dict[str, Any]:
        answer = self.session.get(f"{self.url}/{request_id}", timeout=10)
        answer.raise_for_status()
        state: dict[str, Any] = answer.json()
        return state

    def transcribe(self, request_id: str, media_url: str) -> str:
        submitted = self.submit(request_id, media_url)
        assert submitted.status_code == 202, submitted.text
        assert submitted.json()["status"] in ("PROCESSING", "COMPLETED", "FAILED")
        end = time.monotonic() + 90
        while time.monotonic() < end:
            state = self.poll(request_id)
            if state["status"] == "COMPLETED":
                return (
                    f"{state['transcription']}\n"
                    f"{state['duration']:.1f} s, {state['confidence']:.2f}, in {state['processing_time']:.1f} s"
                )
            if state["status"] == "FAILED":
                raise RuntimeError(state["error"])
            assert state == {**state, "status": "PROCESSING", "message": "Transcription in progress"}
            time.sleep(0.1)
        raise TimeoutError(request_id)


@pytest.fixture
def client(embedded_service: Service) -> PollingClient:
    return PollingClient(embedded_service.url)


def new_request_id() -> str:
    return str(uuid.uuid4().int)[:19]


def test_a_url_becomes_a_transcript(client: PollingClient, external_server: ExternalServer) -> None:
    text, figures = client.transcribe(new_request_id(), external_server.url("/clip.mp3?token=secret")).split("\n")
    assert word_error_rate(WORDS, text) <= 5
    assert figures.startswith("23.")


def test_the_first_answer_has_the_documented_shape(client: PollingClient, external_server: ExternalServer) -> None:
    request_id = new_request_id()
    answer = client.submit(request_id, external_server.url("/clip.mp3"), metadata={"video": 7}, priority="high")
    assert answer.status_code == 202
    expected = {"request_id": request_id, "status": "PROCESSING", "message": "Job submitted successfully"}
    assert expected.items() <= answer.json().items()


def test_a_repeated_request_id_returns_the_same_job(client: PollingClient, external_server: ExternalServer) -> None:
    request_id = new_request_id()
    client.transcribe(request_id, external_server.url("/once.mp3"))
    second = client.submit(request_id, external_server.url("/another.mp3"), language="vi")
    assert (second.status_code, second.json()["status"]) == (202, "COMPLETED")
    assert second.json()["transcription"]
    assert external_server.fetched.count("/once.mp3") == 1
    assert "/another.mp3" not in external_server.fetched


async def test_concurrent_submits_of_one_request_id_create_one_job(
    embedded_service: Service, external_server: ExternalServer
) -> None:
    body = {"request_id": new_request_id(), "media_url": external_server.url("/race.mp3"), "language": "en"}
    async with httpx.AsyncClient(base_url=embedded_service.url, timeout=30) as client:
        answers = await asyncio.gather(*(client.post("/api/v1/transcribe", json=body) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["job_id"] for answer in answers}) == 1


async def test_five_concurrent_jobs_with_httpx(embedded_service: Service, external_server: ExternalServer) -> None:
    """The client parses the body before it checks the status, so every body must be JSON."""

    async def transcribe_one(client: httpx.AsyncClient, name: str) -> str:
        request_id = new_request_id()
        body = {"request_id": request_id, "media_url": external_server.url(f"/{name}.mp3"), "language": "en"}
        data = (await client.post("/api/v1/transcribe", json=body)).json()
        while data["status"] == "PROCESSING":
            await asyncio.sleep(0.1)
            data = (await client.get(f"/api/v1/transcribe/{request_id}")).json()
        return str(data["status"])

    async with httpx.AsyncClient(base_url=embedded_service.url, timeout=10) as client:
        states = await asyncio.gather(*(transcribe_one(client, f"five-{number}") for number in range(5)))
        assert states == ["COMPLETED"] * 5
        missing = await client.get("/api/v1/transcribe/7577034049470926087")
        assert (missing.json()["detail"], missing.status_code) == ("Job not found: 7577034049470926087", 404)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/status/403", "Failed to download audio file: 403 Forbidden"),
        ("/status/404", "Failed to download audio file: 404 Not Found"),
        ("/status/410", "Failed to download audio file: 410 Gone"),
        ("/inside", "Failed to download audio file: "),
        ("/redirect/loop", "Failed to download audio file: too many redirects"),
        ("/compressed", "Failed to download audio file: the server sent a compressed response"),
    ],
)
def test_a_failed_download_is_explained(
    client: PollingClient, external_server: ExternalServer, path: str, error: str
) -> None:
    with pytest.raises(RuntimeError, match=error):
        client.transcribe(new_request_id(), external_server.url(path))


def test_redirects_are_followed(client: PollingClient, external_server: ExternalServer) -> None:
    assert client.transcribe(new_request_id(), external_server.url("/redirect/3"))


def test_a_failed_download_is_retried(client: PollingClient, external_server: ExternalServer) -> None:
    external_server.statuses["/flaky.mp3"] = [503]
    assert client.transcribe(new_request_id(), external_server.url("/flaky.mp3"))
    assert external_server.fetched.count("/flaky.mp3") == 2


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://example.com/a.mp3", "file:///etc/passwd", "http://127.0.0.1:1/a", "http://169.254.169.254/latest"),
        *("http://2130706433/a", "http://[::1]/a", "http://user:pw@example.com/a", "http://10.0.0.1/a", "nonsense"),
        *("minio://other-bucket/inbox/local/a.mp3", "minio://stt-audio-files/uploads/x/a.mp3", "http://0x7f.1/a"),
    ],
)
def test_forbidden_media_urls_are_rejected_at_submit(client: PollingClient, url: str) -> None:
    answer = client.submit(new_request_id(), url)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_FIELD")
    assert answer.json()["errors"][0]["field"] == "media_url"


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 256, "ä", "a/b"])
def test_invalid_request_ids_are_rejected(
    client: PollingClient, external_server: ExternalServer, request_id: str
) -> None:
    answer = client.submit(request_id, external_server.url("/clip.mp3"))
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], str)


def test_a_cancelled_job_reads_as_failed(client: PollingClient, external_server: ExternalServer) -> None:
    request_id = new_request_id()
    job_id = client.submit(request_id, external_server.url("/drip")).json()["job_id"]
    url = client.url.replace("transcribe", f"jobs/{job_id}/cancel")
    assert client.session.post(url, timeout=10).status_code == 202
    state = client.poll(request_id)
    assert (state["status"], state["error"]) == ("FAILED", "Job cancelled")


@pytest.mark.servers
def test_urls_of_our_own_storage_are_allowed_by_default(real_service: Service) -> None:
    s3 = storage(real_service)
    bucket = real_service.environment["MINIO_BUCKET"]
    s3.fput_object(bucket, "inbox/local/hello.mp3", str(SAMPLE))
    client = PollingClient(real_service.url)
    signed = s3.presigned_get_object(bucket, "inbox/local/hello.mp3", expires=timedelta(hours=1))
    assert word_error_rate(WORDS, client.transcribe(new_request_id(), signed).split("\n")[0]) <= 5
    minio_url = f"minio://{bucket}/inbox/local/hello.mp3"
    assert word_error_rate(WORDS, client.transcribe(new_request_id(), minio_url).split("\n")[0]) <= 5
    with pytest.raises(RuntimeError, match="does not exist"):
        client.transcribe(new_request_id(), f"minio://{bucket}/inbox/local/nothing.mp3")
    assert client.submit(new_request_id(), f"minio://{bucket}/inbox/somebody/hello.mp3").status_code == 422


@pytest.mark.servers
def test_results_are_stored_as_json_and_text(real_service: Service) -> None:
    job_id = real_service.upload(SAMPLE, language="en")
    real_service.wait(job_id)
    s3, bucket = storage(real_service), real_service.environment["MINIO_BUCKET"]
    names = {item.object_name for item in s3.list_objects(bucket, f"results/{job_id}/", recursive=True)}
    assert names == {f"results/{job_id}/transcription.json", f"results/{job_id}/transcription.txt"}
    text = s3.get_object(bucket, f"results/{job_id}/transcription.txt").read().decode()
    assert word_error_rate(WORDS, text) <= 5


def storage(service: Service) -> S3:
    keys = (service.environment["MINIO_ACCESS_KEY"], service.environment["MINIO_SECRET_KEY"])
    return S3(service.environment["MINIO_ENDPOINT"], *keys, secure=False)


@pytest.mark.servers
def test_an_upload_link_points_to_minio(real_service: Service) -> None:
    check_upload_link(real_service, SAMPLE)


def test_an_upload_link_points_to_the_api_if_storage_is_local(embedded_service: Service) -> None:
    check_upload_link(embedded_service, SAMPLE)


def check_upload_link(service: Service, path: Path) -> None:
    body: dict[str, Any] = {"filename": "hello.mp3", "language": "en", "words": True}
    answer = requests.post(f"{service.url}/api/v1/uploads", json=body, timeout=10)
    assert answer.status_code == 201, answer.text
    link = answer.json()
    start = f"{service.url}/api/v1/jobs/{link['job_id']}/start"
    premature = requests.post(start, timeout=10)
    assert (premature.status_code, premature.json()["code"]) == (409, "NOTHING_UPLOADED")
    uploaded = requests.put(link["upload_url"], data=path.read_bytes(), timeout=30)
    assert uploaded.status_code == 200, uploaded.text
    for _ in range(2):
        started = requests.post(start, timeout=10)
        assert (started.status_code, started.json()["job_id"]) == (202, link["job_id"])
    assert service.wait(link["job_id"])["status"] == "COMPLETED"
    result = service.client.get(f"/api/v1/result/{link['job_id']}").json()
    assert word_error_rate(WORDS, result["text"]) <= 5
    assert all(segment["words"] for segment in result["segments"])


def test_a_modified_upload_link_is_rejected(embedded_service: Service) -> None:
    body = {"filename": "hello.mp3", "language": "en"}
    link = requests.post(f"{embedded_service.url}/api/v1/uploads", json=body, timeout=10).json()
    other = requests.post(f"{embedded_service.url}/api/v1/uploads", json=body, timeout=10).json()
    for url in (
        link["upload_url"][:-1],
        link["upload_url"].replace("expires=", "expires=9"),
        link["upload_url"].replace(link["job_id"], other["job_id"]),
    ):
        assert requests.put(url, data=b"x", timeout=10).status_code == 401
    empty = requests.put(link["upload_url"], data=b"", timeout=10)
    assert empty.status_code == 200
    start = requests.post(f"{embedded_service.url}/api/v1/jobs/{link['job_id']}/start", timeout=10)
    assert (start.status_code, start.json()["code"]) == (400, "EMPTY_FILE")
