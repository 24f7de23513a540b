"""API keys, owners and limits: authentication, visibility, and rates."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text, update

from core.config import load_settings
from core.database import Database, after
from core.domain.job_options import JobOptions
from core.errors import DatabaseUnavailable, RateLimitedError, SettingsError
from core.secret import Secret
from internal import bootstrap
from internal.api.app import create_app
from internal.bootstrap import Application
from internal.services.limiting import Limiter
from repositories import api_keys
from repositories.models import ApiKey, Job
from tests.contract.databases import upgrade
from tests.e2e.service import ROOT

FIRST = "stt_0123456789abcdef_" + "s" * 40
WAV = ("a.wav", b"RIFF" + bytes(2000))


@contextlib.asynccontextmanager
async def serve_api(folder: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Application]]:
    app = bootstrap.build(load_settings(_env_file=None, data_dir=folder / "data", **settings))
    await upgrade(app.database)
    await app.storage.start()
    await app.broker.start()
    await app.services.api_keys.ensure_configured()
    transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        yield client, app
    await app.stop()


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def upload(client: httpx.AsyncClient, **headers: str) -> httpx.Response:
    return await client.post("/api/v1/upload", files={"file": WAV}, headers=headers)


# -- authentication ----------------------------------------------------------------------------------------------------
async def test_without_keys_only_loopback_is_allowed(tmp_path: Path) -> None:
    async with serve_api(tmp_path / "a") as (client, _):
        assert (await upload(client, **{"X-API-Key": "anything"})).status_code == 200
    async with serve_api(tmp_path / "b", api_host="0.0.0.0") as (client, _):
        assert (await upload(client)).status_code == 401
        assert (await client.get("/live")).status_code == 200
    async with serve_api(tmp_path / "c", api_host="0.0.0.0", allow_anonymous=True) as (client, _):
        assert (await upload(client)).status_code == 200


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "stt_",
        FIRST[:-1] + "t",
        FIRST.replace("0123", "3210"),
        FIRST + "s",
        "stt_0123456789abcdef_" + "\x7f" * 40,
    ],
)
async def test_every_invalid_key_gets_the_same_answer(tmp_path: Path, key: str) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        answer = await client.get("/api/v1/jobs", headers={"X-API-Key": key})
        assert answer.status_code == 401
        assert answer.json()["detail"] == (await client.get("/api/v1/jobs")).json()["detail"]
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_keys_are_read_from_both_headers(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        for headers in ({"X-API-Key": FIRST}, with_key(FIRST)):
            assert (await client.get("/api/v1/jobs", headers=headers)).status_code == 200


async def test_revoked_and_expired_keys_are_rejected(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        revoked, _ = await app.services.api_keys.create(None, None, None)
        expired, _ = await app.services.api_keys.create(None, None, 60)
        for key in (revoked, expired):
            assert (await client.get("/api/v1/jobs", headers=with_key(key))).status_code == 200
        async with app.database.write() as session:
            assert await api_keys.revoke(session, revoked.split("_")[1])
            assert not await api_keys.revoke(session, revoked.split("_")[1])
            await session.execute(update(ApiKey).where(ApiKey.expires_at.is_not(None)).values(expires_at=after(-1)))
        for key in (revoked, expired):
            assert (await client.get("/api/v1/jobs", headers=with_key(key))).status_code == 401


async def test_revoking_the_last_key_does_not_disable_authentication(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        async with app.database.write() as session:
            await api_keys.revoke(session, FIRST.split("_")[1])
        assert (await client.get("/api/v1/jobs")).status_code == 401


async def test_the_secret_is_not_in_the_database(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (_, app):
        key, _owner = await app.services.api_keys.create("team", "for the crawler", None)
        await app.database.stop()
        stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("stt.db*"))
        assert key.split("_", 2)[2].encode() not in stored
        assert FIRST.split("_")[2].encode() not in stored


async def test_a_first_key_of_another_secret_prevents_the_start(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (_, app):
        await app.services.api_keys.ensure_configured()
    with pytest.raises(SettingsError, match="API_KEY"):
        async with serve_api(tmp_path, api_key=FIRST[:-1] + "t"):
            pass


async def test_an_invalid_key_is_rejected_before_the_body_is_read(tmp_path: Path) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield bytes(1024)

    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        for path in ("/api/v1/upload", "/v1/audio/transcriptions"):
            assert (await client.post(path, content=body(), headers=headers)).status_code == 401
    assert read == 0


# -- visibility --------------------------------------------------------------------------------------------------------
async def test_another_owners_job_is_not_found_on_any_route(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        other, _ = await app.services.api_keys.create("other", None, None)
        job_id = (await upload(client, **with_key(FIRST))).json()["job_id"]
        submit = {"request_id": "r-1", "media_url": "http://example.com/a.mp3", "language": "en"}
        assert (await client.post("/api/v1/transcribe", json=submit, headers=with_key(FIRST))).status_code == 202
        link = (await client.post("/api/v1/uploads", json={"filename": "a.wav"}, headers=with_key(FIRST))).json()
        spec = create_app(app.settings, app.services).openapi()["paths"]
        paths = [path for path in spec if "{" in path and not path.startswith("/api/v1/models")]
        calls = [(path, method) for path in paths for method in spec[path] if method != "put"]
        assert len(calls) >= 11
        for path, method in calls:
            for number in (job_id, link["job_id"]):
                url = path.replace("{job_id}", number).replace("{request_id}", "r-1").replace("{segment_id}", "0")
                answer = await client.request(method.upper(), url, headers=with_key(other))
                assert answer.status_code == 404, (method, url)
        assert (await client.get("/api/v1/jobs", headers=with_key(other))).json()["jobs"] == []
        assert (await client.get(f"/api/v1/status/{job_id}", headers=with_key(FIRST))).status_code == 200


async def test_two_owners_may_use_the_same_request_id_and_key(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, app):
        other, _ = await app.services.api_keys.create("other", None, None)
        submit = {"request_id": "r-1", "media_url": "http://example.com/a.mp3", "language": "en"}
        job_ids = set()
        for key in (FIRST, other, FIRST, other):
            headers = with_key(key) | {"Idempotency-Key": "k"}
            job_ids.add((await client.post("/api/v1/transcribe", json=submit, headers=headers)).json()["job_id"])
        assert len(job_ids) == 2


async def test_clients_cannot_set_internal_fields(tmp_path: Path) -> None:
    """Mass assignment: the service's own fields are ignored in all parts of a request."""
    async with serve_api(tmp_path) as (client, app):
        mine = {"job_id": "x", "owner": "other", "status": "COMPLETED", "failures": 9, "options": {"a": 1}, "band": 9}
        submit = {"request_id": "r-1", "media_url": "http://example.com/a.mp3", "language": "en", **mine}
        job_id = (await client.post("/api/v1/transcribe", json=submit)).json()["job_id"]
        form = {name: str(value) for name, value in mine.items()}
        await client.post("/api/v1/upload", files={"file": WAV}, data=form)
        async with app.database.read() as session:
            job = await session.get(Job, job_id)
        assert job is not None
        expected = ("local", "PENDING", 0, JobOptions(), 2)
        assert (job.owner, job.status, job.failures, job.options, job.band) == expected


async def test_pagination(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        job_ids = [(await upload(client)).json()["job_id"] for _ in range(7)]
        seen: list[str] = []
        cursor: str | None = None
        while True:
            query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/v1/jobs", params=query)).json()
            seen += [job["job_id"] for job in page["jobs"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == job_ids[::-1]
        assert len((await client.get("/api/v1/jobs", params={"status": "PENDING"})).json()["jobs"]) == 7
        assert (await client.get("/api/v1/jobs", params={"status": "COMPLETED"})).json()["jobs"] == []
        assert (await client.get("/api/v1/jobs", params={"language": "en"})).json()["jobs"] == []
        for invalid in ({"cursor": "x"}, {"cursor": "MjAyNg=="}, {"limit": 0}, {"limit": 201}, {"status": "x"}):
            assert (await client.get("/api/v1/jobs", params=invalid)).status_code == 422, invalid


# -- limits ------------------------------------------------------------------------------------------------------------
async def test_requests_per_minute_are_limited(tmp_path: Path) -> None:
    async with serve_api(tmp_path, rate_limit_per_minute=5) as (client, _):
        assert {(await client.get("/api/v1/jobs")).status_code for _ in range(6)} == {200}, "loopback is not limited"
    async with serve_api(tmp_path, rate_limit_per_minute=5, api_key=FIRST) as (client, _):
        answers = [await client.get("/api/v1/jobs", headers=with_key(FIRST)) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert answers[-1].json()["code"] == "RATE_LIMITED"
        assert (await client.get("/live")).status_code == 200


async def test_rate_limits_are_shared_by_processes(database: Database, tmp_path: Path) -> None:
    settings = load_settings(_env_file=None, data_dir=tmp_path, rate_limit_per_minute=20)
    limiters = [Limiter(settings, database, shared=True) for _ in range(4)]
    results = await asyncio.gather(*(limiters[n % 4].count_request("owner") for n in range(30)), return_exceptions=True)
    refused = [error for error in results if isinstance(error, RateLimitedError)]
    assert len(refused) == 10
    assert all(error is None or error in refused for error in results)
    assert all(1 <= (error.retry_after or 0) <= 60 for error in refused)
    await limiters[0].count_request("somebody else")


async def test_quotas(tmp_path: Path) -> None:
    async with serve_api(tmp_path / "a", max_queued_jobs=2) as (client, _):
        codes = [(await upload(client)).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
    async with serve_api(tmp_path / "b", max_bytes_per_day=3000) as (client, _):
        assert (await upload(client)).status_code == 200
        refused = await upload(client)
        assert (refused.status_code, refused.json()["code"]) == (429, "QUOTA_EXCEEDED")
        assert 80_000 < int(refused.headers["retry-after"]) <= 86_400
    async with serve_api(tmp_path / "c", max_queued_seconds=10) as (client, app):
        assert (await upload(client)).status_code == 200
        async with app.database.write() as session:
            await session.execute(update(Job).values(audio_duration_seconds=11.0))
        assert (await upload(client)).status_code == 429
        leftovers = [path for path in (Path(app.settings.data_dir) / "objects").rglob("*") if path.is_file()]
        assert len(leftovers) == 1


# -- network safety ----------------------------------------------------------------------------------------------------
async def test_security_headers(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        for path in ("/", "/live", "/api/v1/jobs", "/nowhere", "/docs"):
            headers = (await client.get(path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers


async def test_cross_origin_requests_need_an_allowed_origin(tmp_path: Path) -> None:
    async with serve_api(tmp_path, cors_origins="https://app.example") as (client, _):
        allowed = await client.get("/live", headers={"Origin": "https://app.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        other = await client.get("/live", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("stated", [True, False])
async def test_body_sizes_are_limited(tmp_path: Path, stated: bool) -> None:
    big = b'{"request_id": "' + b"x" * 70_000 + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        yield big[:40_000]
        yield big[40_000:]

    async with serve_api(tmp_path) as (client, _):
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/api/v1/transcribe", content=big if stated else pieces(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("RABBITMQ_URL", {"broker": "rabbitmq", "rabbitmq_url": "amqp://guest:guest@10.0.0.1/"}),
        ("RABBITMQ_URL", {"broker": "rabbitmq", "rabbitmq_url": "amqp://10.0.0.1/"}),
        ("MINIO_SECRET_KEY", {"storage": "minio", "minio_access_key": "a", "minio_secret_key": "minioadmin"}),
        ("DATABASE_URL", {"database_url": "postgresql://postgres:postgres@10.0.0.1/stt"}),
        ("RABBITMQ_URL", {"broker": "rabbitmq", "rabbitmq_url": "amqp://admin:admin@10.0.0.1/"}),
        ("RABBITMQ_URL", {"broker": "rabbitmq", "rabbitmq_url": "amqp://stt:%53TT@10.0.0.1/"}),
        ("MINIO_SECRET_KEY", {"storage": "minio", "minio_access_key": "minio", "minio_secret_key": "minio123"}),
        ("MINIO_SECRET_KEY", {"storage": "minio", "minio_access_key": "ours-alone", "minio_secret_key": "Ours-Alone"}),
        ("DATABASE_URL", {"database_url": "postgresql://stt:changeme@10.0.0.1/stt"}),
        ("DATABASE_URL", {"database_url": "postgresql://stt@10.0.0.1/stt?password=admin"}),
    ],
)
def test_default_passwords_prevent_the_start(name: str, values: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=name):
        load_settings(_env_file=None, **values)
    load_settings(_env_file=None, allow_default_credentials=True, **values)


def test_a_short_secret_prevents_the_start() -> None:
    with pytest.raises(SettingsError, match=r"SECRET_KEY.*openssl rand"):
        load_settings(_env_file=None, secret_key="s" * 31)
    load_settings(_env_file=None, secret_key="s" * 32)


def test_secrets_are_in_no_repr() -> None:
    word = "hidden-" * 6
    settings = load_settings(
        _env_file=None,
        secret_key=word,
        api_key=f"stt_0123456789abcdef_{word}",
        database_url=f"postgresql://u:{word}@h/d",
        rabbitmq_url=f"amqp://u:{word}@h/",
        minio_access_key=word,
        minio_secret_key=word,
    )
    assert "hidden" not in f"{settings!r} {settings}"


async def test_parameters_of_statements_are_in_no_error(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable) as caught:
        async with database.read() as session:
            await session.execute(text("SELECT :word FROM nowhere"), {"word": "s3cret-word"})
    assert "s3cret" not in repr(caught.value.__cause__) + str(caught.value.__cause__)


def test_permissions_of_a_readable_secret_are_restricted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Secret("", tmp_path).sign("a", "text")
    (tmp_path / "secret.key").chmod(0o644)
    Secret("", tmp_path)
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    assert "secret key was readable by other users" in "".join(capsys.readouterr())
    (tmp_path / "secret.key").chmod(0o640)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(SettingsError, match="SECRET_KEY"):
        Secret("", tmp_path)


def test_the_secret_is_created_once_with_private_permissions(tmp_path: Path) -> None:
    first, second = Secret("", tmp_path), Secret("", tmp_path)
    signature = first.sign("a", "text")
    assert second.verify("a", "text", signature)
    assert not second.verify("b", "text", signature)
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    assert not Secret("another", tmp_path).verify("a", "text", signature)


def test_media_hosts_are_our_own_storage_by_default() -> None:
    own = {"storage": "minio", "minio_access_key": "a", "minio_secret_key": "b", "minio_endpoint": "minio:9000"}
    assert load_settings(_env_file=None, **own, minio_public_endpoint="s3.example").media_hosts == (
        "minio:9000",
        "s3.example:80",
    )
    behind_a_proxy = load_settings(_env_file=None, **own, minio_public_endpoint="s3.example", minio_public_use_ssl=True)
    assert behind_a_proxy.media_hosts == ("minio:9000", "s3.example:443")
    assert load_settings(_env_file=None).media_hosts == ()
    assert load_settings(_env_file=None, media_url_allowed_hosts="a.b:1").media_hosts == ("a.b:1",)
    with pytest.raises(SettingsError, match="MEDIA_URL_ALLOWED_HOSTS"):
        load_settings(_env_file=None, media_url_allowed_hosts="a.b")


async def test_a_key_of_a_deleted_job_is_free_again(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        first = await upload(client, **{"Idempotency-Key": "k"})
        assert (await client.delete(f"/api/v1/jobs/{first.json()['job_id']}")).status_code == 204
        second = await upload(client, **{"Idempotency-Key": "k"})
        assert second.status_code == 200
        assert second.json()["job_id"] != first.json()["job_id"]


async def test_an_upload_link_is_created_once_per_key(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (client, _):
        headers = {"Idempotency-Key": "k"}
        body = {"filename": "a.wav"}
        answers = [await client.post("/api/v1/uploads", json=body, headers=headers) for _ in range(2)]
        assert len({answer.json()["job_id"] for answer in answers}) == 1
        other = await client.post("/api/v1/uploads", json={"filename": "b.wav"}, headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")


async def test_global_statistics_need_a_key(tmp_path: Path) -> None:
    async with serve_api(tmp_path, api_key=FIRST) as (client, _):
        assert (await client.get("/api/v1/stats")).status_code == 401
        assert (await client.get("/api/v1/stats", headers=with_key(FIRST))).status_code == 200


def test_keys_are_managed_by_command(tmp_path: Path) -> None:
    def stt(*words: str) -> str:
        call = [sys.executable, "-m", "internal.cli", *words]
        environment = {**os.environ, "DATA_DIR": str(tmp_path), "COLUMNS": "200"}
        completed = subprocess.run(call, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        return completed.stdout + completed.stderr

    assert "stt migrate" in stt("keys", "list")
    stt("migrate")
    assert "No keys" in stt("keys", "list")
    job_ids = stt("keys", "create", "--owner", "crawler", "--days", "1")
    key_id = job_ids.split("stt_")[1].split("_")[0]
    assert "whsec_" in job_ids
    assert stt("keys", "webhook-secret", "crawler").strip() in job_ids
    assert key_id in stt("keys", "list")
    assert "is revoked" in stt("keys", "revoke", key_id)
    assert "no valid key" in stt("keys", "revoke", key_id)
    assert "An owner is" in stt("keys", "create", "--owner", "a/b")
