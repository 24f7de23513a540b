"""Submit by URL and by link in detail: expiry of a request_id, sizes, an outage during a poll."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, update

from core.database import after
from core.domain.job import JobStatus, Priority
from core.errors import DatabaseUnavailable
from internal import bootstrap
from internal.services.submit_options import SubmitOptions
from repositories.models import Chunk, Job, UploadIntent
from tests.clients.external_server import run_external_server
from tests.integration.test_access import serve_api
from tests.integration.test_consumer import open_application, running_consumer, settings_for, wait_for_end

SUBMIT = {"request_id": "r-1", "media_url": "http://example.com/a.mp3?signature=secret", "language": "en"}


async def set_job(app: Any, **values: Any) -> None:
    async with app.database.write() as session:
        await session.execute(update(Job).values(**values))


async def test_a_request_id_can_be_reused_after_it_expires(tmp_path: Path) -> None:
    async with serve_api(tmp_path, job_ttl_seconds=60) as (client, app):
        first = (await client.post("/api/v1/transcribe", json=SUBMIT)).json()["job_id"]
        await set_job(app, status=JobStatus.COMPLETED, completed_at=after(-50), transcription_text="hello")
        state = (await client.get("/api/v1/transcribe/r-1")).json()
        assert (state["status"], state["transcription"]) == ("COMPLETED", "hello")
        assert [state[name] for name in ("duration", "confidence", "processing_time")] == [0.0, 0.0, 0.0]
        await set_job(app, completed_at=after(-61))
        expired = await client.get("/api/v1/transcribe/r-1")
        assert (expired.status_code, expired.json()["detail"]) == (404, "Job not found: r-1")
        assert (await client.get(f"/api/v1/jobs/{first}")).status_code == 200, "the job itself stays"
        second = await client.post("/api/v1/transcribe", json=SUBMIT)
        assert second.json()["message"] == "Job submitted successfully"
        assert second.json()["job_id"] != first


async def test_an_outage_during_a_poll_is_answered_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve_api(tmp_path) as (client, app):
        await client.post("/api/v1/transcribe", json=SUBMIT)

        @contextlib.asynccontextmanager
        async def down() -> AsyncIterator[None]:
            raise DatabaseUnavailable
            yield

        with monkeypatch.context() as patch:
            patch.setattr(app.database, "read", down)
            answer = await client.get("/api/v1/transcribe/r-1")
        assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert isinstance(answer.json()["detail"], str)
        assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/api/v1/transcribe/r-1")).json()["status"] == "PROCESSING"


async def test_a_url_signature_is_never_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serve_api(tmp_path) as (client, _):
        job_id = (await client.post("/api/v1/transcribe", json=SUBMIT)).json()["job_id"]
        answers = (await client.get(f"/api/v1/jobs/{job_id}")).text + (await client.get("/api/v1/jobs")).text
    assert "a.mp3" in answers
    assert "secret" not in answers
    assert "signature=secret" not in "".join(capsys.readouterr())


async def create_link(client: httpx.AsyncClient) -> dict[str, str]:
    link: dict[str, str] = (await client.post("/api/v1/uploads", json={"filename": "a.wav"})).json()
    return link


async def test_an_excessive_upload_is_rejected_during_transfer(tmp_path: Path) -> None:
    async with serve_api(tmp_path, max_upload_size_mb=1) as (client, app):
        link = await create_link(client)
        answer = await client.put(link["upload_url"], content=bytes(2_000_000))
        assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")
        assert not objects(app)


async def test_an_excessive_object_in_storage_is_rejected_at_the_start(tmp_path: Path) -> None:
    async with serve_api(tmp_path, max_upload_size_mb=1) as (client, app):
        link = await create_link(client)
        await app.storage.put_bytes(f"incoming/{link['job_id']}/a.wav", bytes(2_000_000))
        answer = await client.post(f"/api/v1/jobs/{link['job_id']}/start")
        assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")
        assert not objects(app)


async def test_an_unused_link_expires(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, app):
        link = await create_link(client)
        async with app.database.write() as session:
            await session.execute(update(UploadIntent).values(expires_at=after(-1)))
        assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 404
        assert (await client.put(link["upload_url"], content=b"x")).status_code == 404


def objects(app: Any) -> list[Path]:
    return [path for path in (Path(app.settings.data_dir) / "objects").rglob("*") if path.is_file()]


THE_END = base64.b64encode(b"9999-12-31T23:59:59-14:00 00000000-0000-4000-8000-00000000000a").decode()


@pytest.fixture
async def api_on_either_database(database_url: str, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The API on each database: values that one of them cannot store are not an outage."""
    async with serve_api(tmp_path, database_url=database_url) as (client, _):
        yield client


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "\ud800"},
        {"prompt": "a\0b"},
        {"metadata": {"a": "\ud800"}},
        {"metadata": {"\0": 1}},
        {"metadata": {"a": [1e400]}},
        {"model": "\0"},
        {"model": "x" * 101},
        {"language": "\0"},
        {"priority": "\ud800"},
        {"request_id": "a\0"},
        {"media_url": "http://example.com/\0"},
        {"callback_url": "http://example.com/\ud800"},
    ],
    ids=str,
)
async def test_values_that_no_database_stores_are_rejected(
    api_on_either_database: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    body = json.dumps({**SUBMIT, **fields}).encode()
    answer = await api_on_either_database.post(
        "/api/v1/transcribe", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/transcribe/%00", 404),
        ("/api/v1/transcribe/%ED%A0%80", 404),
        ("/api/v1/status/%00", 404),
        ("/api/v1/jobs?language=%00", 422),
        (
            f"/api/v1/jobs?cursor={THE_END}",
            422,
        ),
        ("/api/v1/uploads/%00?expires=1&signature=%00", 405),
    ],
)
async def test_urls_that_no_database_stores_are_rejected(
    api_on_either_database: httpx.AsyncClient, path: str, status: int
) -> None:
    assert (await api_on_either_database.get(path)).status_code == status


@pytest.mark.parametrize(
    ("path", "code", "retries"),
    [
        ("/endless", "FILE_TOO_LARGE", 0),
        ("/drip", "NETWORK", 1),
        ("/broken", "NETWORK", 1),
        ("/status/500", "NETWORK", 1),
    ],
)
async def test_slow_and_endless_servers_are_given_up(tmp_path: Path, path: str, code: str, retries: int) -> None:
    """Fetches are limited in bytes and seconds; temporary errors are retried."""
    with run_external_server() as external_server:
        settings = settings_for(
            tmp_path,
            media_url_allowed_hosts=external_server.host,
            max_upload_size_mb=2,
            download_timeout_seconds=1,
            max_retries=1,
        )
        async with open_application(settings) as app, running_consumer(app):
            submit_options = SubmitOptions("en", "demo-q5_0", Priority.NORMAL)
            submissions = app.services.url_submissions
            job, new = await submissions.submit("local", "r-1", external_server.url(path), submit_options, None)
            assert new
            end = await wait_for_end(app, job.job_id)
        assert (end.status, end.error_code, end.retry_count) == (JobStatus.FAILED, code, retries)
        assert len(external_server.fetched) == retries + 1
        assert not objects(app)


async def test_a_fetched_recording_is_not_fetched_again(tmp_path: Path) -> None:
    with run_external_server() as external_server:
        async with open_application(settings_for(tmp_path, media_url_allowed_hosts=external_server.host)) as app:
            submit_options = SubmitOptions("en", "demo-q5_0", Priority.NORMAL)
            submissions = app.services.url_submissions
            job, _ = await submissions.submit("local", "r-1", external_server.url("/a.mp3"), submit_options, None)
            async with running_consumer(app):
                assert (await wait_for_end(app, job.job_id)).status == JobStatus.COMPLETED
            async with app.database.write() as session:
                await session.execute(
                    update(Job).values(status=JobStatus.PENDING, chunks_total=None, chunks_completed=0, due_at=after())
                )
                await session.execute(delete(Chunk))
            async with running_consumer(app):
                await bootstrap.maintenance(app).publish_due()
                assert (await wait_for_end(app, job.job_id)).status == JobStatus.COMPLETED
        assert external_server.fetched == ["/a.mp3"]
