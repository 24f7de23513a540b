"""Submit by URL and by link, in small print: expiry of a request_id, sizes, an outage in the middle of a poll."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from core.database import after
from core.domain.job import JobStatus
from core.errors import DatabaseUnavailable
from repositories.models import Job, UploadIntent
from tests.integration.test_access import serving

SUBMIT = {"request_id": "r-1", "media_url": "http://example.com/a.mp3?signature=secret", "language": "en"}


async def set_job(parts: Any, **values: Any) -> None:
    async with parts.database.write() as session:
        await session.execute(update(Job).values(**values))


async def test_a_request_id_is_free_again_after_its_time(tmp_path: Path) -> None:
    async with serving(tmp_path, job_ttl_seconds=60) as (client, parts):
        first = (await client.post("/api/v1/transcribe", json=SUBMIT)).json()["job_id"]
        await set_job(parts, status=JobStatus.COMPLETED, completed_at=after(-50), transcription_text="hello")
        state = (await client.get("/api/v1/transcribe/r-1")).json()
        assert (state["status"], state["transcription"]) == ("COMPLETED", "hello")
        assert [state[name] for name in ("duration", "confidence", "processing_time")] == [0.0, 0.0, 0.0]
        await set_job(parts, completed_at=after(-61))
        gone = await client.get("/api/v1/transcribe/r-1")
        assert (gone.status_code, gone.json()["detail"]) == (404, "Job not found: r-1")
        assert (await client.get(f"/api/v1/jobs/{first}")).status_code == 200, "the job itself stays"
        again = await client.post("/api/v1/transcribe", json=SUBMIT)
        assert again.json()["message"] == "Job submitted successfully"
        assert again.json()["job_id"] != first


async def test_an_outage_in_the_middle_of_a_poll_is_json_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path) as (client, parts):
        await client.post("/api/v1/transcribe", json=SUBMIT)

        @contextlib.asynccontextmanager
        async def down() -> AsyncIterator[None]:
            raise DatabaseUnavailable
            yield

        with monkeypatch.context() as patch:
            patch.setattr(parts.database, "read", down)
            answer = await client.get("/api/v1/transcribe/r-1")
        assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert isinstance(answer.json()["detail"], str)
        assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/api/v1/transcribe/r-1")).json()["status"] == "PROCESSING"


async def test_a_signature_in_an_address_is_nowhere_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with serving(tmp_path) as (client, _):
        job_id = (await client.post("/api/v1/transcribe", json=SUBMIT)).json()["job_id"]
        told = (await client.get(f"/api/v1/jobs/{job_id}")).text + (await client.get("/api/v1/jobs")).text
    assert "a.mp3" in told
    assert "secret" not in told
    assert "signature=secret" not in "".join(capsys.readouterr())


async def promised(client: httpx.AsyncClient) -> dict[str, str]:
    link: dict[str, str] = (await client.post("/api/v1/uploads", json={"filename": "a.wav"})).json()
    return link


async def test_what_is_too_large_is_refused_on_its_way(tmp_path: Path) -> None:
    async with serving(tmp_path, max_upload_size_mb=1) as (client, parts):
        link = await promised(client)
        answer = await client.put(link["upload_url"], content=bytes(2_000_000))
        assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")
        assert not objects(parts)


async def test_what_came_into_storage_too_large_is_refused_at_the_start(tmp_path: Path) -> None:
    async with serving(tmp_path, max_upload_size_mb=1) as (client, parts):
        link = await promised(client)
        await parts.storage.put_bytes(f"uploads/{link['job_id']}/a.wav", bytes(2_000_000))
        answer = await client.post(f"/api/v1/jobs/{link['job_id']}/start")
        assert (answer.status_code, answer.json()["code"]) == (413, "FILE_TOO_LARGE")
        assert not objects(parts)


async def test_a_link_that_was_never_started_ends(tmp_path: Path) -> None:
    async with serving(tmp_path) as (client, parts):
        link = await promised(client)
        async with parts.database.write() as session:
            await session.execute(update(UploadIntent).values(expires_at=after(-1)))
        assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 404
        assert (await client.put(link["upload_url"], content=b"x")).status_code == 404


def objects(parts: Any) -> list[Path]:
    return [path for path in (Path(parts.settings.data_dir) / "objects").rglob("*") if path.is_file()]
