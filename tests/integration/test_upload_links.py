"""Upload links on both storages: counted, measured, and pinned to the measured version."""

# ruff: noqa: F811  fixtures of another file

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from core.database import after
from internal.api.app import create_app
from internal.bootstrap import Application
from internal.services.upload_links import UploadLinks
from repositories.models import Job, UploadIntent
from tests.integration.test_access import serve_api
from tests.integration.test_after_commit import app  # noqa: F401  a fixture

FIRST, OTHER = b"RIFF" + b"1" * 100, b"RIFF" + b"2" * 200


@pytest.fixture
async def client(app: Application) -> Any:
    transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


async def put(client: httpx.AsyncClient, link: dict[str, Any], data: bytes) -> int:
    """Upload as a client does: to the API itself, or straight to storage."""
    if "/api/v1/uploads/" in link["upload_url"]:
        return (await client.put(link["upload_url"], content=data)).status_code
    async with httpx.AsyncClient() as direct:
        return (await direct.put(link["upload_url"], content=data)).status_code


async def open_link(client: httpx.AsyncClient, data: bytes | None = FIRST) -> dict[str, Any]:
    link: dict[str, Any] = (await client.post("/api/v1/uploads", json={"filename": "a.wav"})).json()
    if data is not None:
        assert await put(client, link, data) == 200
    return link


async def recording(app: Application) -> bytes:
    async with app.database.read() as session:
        key = (await session.execute(select(Job.minio_audio_path))).scalar_one() or ""
    return await app.storage.get_bytes(key)


async def test_a_used_link_that_is_still_valid_changes_nothing(
    client: httpx.AsyncClient,
    app: Application,
) -> None:
    link = await open_link(client)
    assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 202
    assert await put(client, link, OTHER) in (200, 404)
    assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 202
    assert await recording(app) == FIRST
    async with app.database.write() as session:
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
    await app.retention.collect_abandoned_objects()
    assert await recording(app) == FIRST
    assert await app.storage.stat(f"incoming/{link['job_id']}/a.wav") is None, "leftovers are collected"


async def test_an_object_replaced_during_the_start_is_detected(
    client: httpx.AsyncClient,
    app: Application,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = await open_link(client)
    copy = UploadLinks._copy

    async def swapped(*args: Any) -> None:
        await app.storage.put_bytes(f"incoming/{link['job_id']}/a.wav", OTHER)
        await copy(*args)

    with monkeypatch.context() as patch:
        patch.setattr(UploadLinks, "_copy", swapped)
        answer = await client.post(f"/api/v1/jobs/{link['job_id']}/start")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 202
    assert await recording(app) == OTHER


async def test_concurrent_starts_create_one_job(client: httpx.AsyncClient, app: Application) -> None:
    link = await open_link(client)
    answers = await asyncio.gather(*(client.post(f"/api/v1/jobs/{link['job_id']}/start") for _ in range(6)))
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    assert await recording(app) == FIRST
    async with app.database.write() as session:
        assert len((await session.execute(select(Job))).all()) == 1
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
    await app.retention.collect_abandoned_objects()
    assert await recording(app) == FIRST


async def test_an_expired_link_starts_no_job_and_leaves_nothing(client: httpx.AsyncClient, app: Application) -> None:
    link = await open_link(client)
    async with app.database.write() as session:
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
    assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 404
    await app.retention.collect_abandoned_objects()
    assert await app.storage.stat(f"incoming/{link['job_id']}/a.wav") is None


async def test_a_repeated_request_gets_a_link_that_works(client: httpx.AsyncClient, app: Application) -> None:
    """Regression: the key outlives the link, and its repetition got an address for a link that was gone."""

    async def request() -> dict[str, Any]:
        headers = {"Idempotency-Key": "k"}
        answer = await client.post("/api/v1/uploads", json={"filename": "a.wav"}, headers=headers)
        assert answer.status_code == 201
        link: dict[str, Any] = answer.json()
        return link

    async def set_lifetime(seconds: float) -> None:
        async with app.database.write() as session:
            await session.execute(update(UploadIntent).values(expires_at=after(seconds)))

    first = await request()
    await set_lifetime(5)
    assert (await request())["job_id"] == first["job_id"]
    async with app.database.read() as session:
        soon = (await session.execute(select(UploadIntent.expires_at < after(60)))).scalar_one()
    assert not soon, "as long as a new link"
    await set_lifetime(-1)
    await app.retention.collect_abandoned_objects()
    again = await request()
    assert again["job_id"] != first["job_id"]
    assert await put(client, again, FIRST) == 200
    assert (await client.post(f"/api/v1/jobs/{again['job_id']}/start")).status_code == 202
    assert (await request())["job_id"] == again["job_id"]


async def test_an_upload_that_ends_after_the_start_is_a_conflict(tmp_path: Any) -> None:
    async with serve_api(tmp_path) as (client, app):
        link = await open_link(client)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def body() -> Any:
            yield OTHER[:50]
            begun.set()
            await go_on.wait()
            yield OTHER[50:]

        late = asyncio.create_task(client.put(link["upload_url"], content=body()))
        async with asyncio.timeout(60):
            await begun.wait()
        assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 202
        go_on.set()
        assert (await late).status_code == 409
        assert await recording(app) == FIRST
        assert (await client.put(link["upload_url"], content=OTHER)).status_code == 404


async def test_open_links_count_towards_the_limit(tmp_path: Any) -> None:
    body = {"filename": "a.wav"}
    async with serve_api(tmp_path / "a", max_open_links=2) as (client, _):
        links = [await open_link(client) for _ in range(2)]
        refused = await client.post("/api/v1/uploads", json=body)
        assert (refused.status_code, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        assert (await client.post(f"/api/v1/jobs/{links[0]['job_id']}/start")).status_code == 202
        assert (await client.post("/api/v1/uploads", json=body)).status_code == 201
    async with serve_api(tmp_path / "b", max_queued_jobs=2) as (client, _):
        links = [await open_link(client) for _ in range(2)]
        assert (await client.post("/api/v1/uploads", json=body)).status_code == 429
        assert (await client.post("/api/v1/upload", files={"file": ("a.wav", FIRST)})).status_code == 429
        for link in links:
            assert (await client.post(f"/api/v1/jobs/{link['job_id']}/start")).status_code == 202
    async with serve_api(tmp_path / "c", max_upload_size_mb=1, max_bytes_per_day=2_500_000) as (client, _):
        statuses = [(await client.post("/api/v1/uploads", json=body)).status_code for _ in range(3)]
        assert statuses == [201, 201, 429]
    async with serve_api(tmp_path / "d", max_open_links=3) as (client, _):
        answers = await asyncio.gather(*(client.post("/api/v1/uploads", json=body) for _ in range(8)))
        assert sorted(answer.status_code for answer in answers) == [201] * 3 + [429] * 5
