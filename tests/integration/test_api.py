"""The API alone: hostile forms, outages, and details of its contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from core.config import load_settings
from core.errors import BrokerUnavailable, DatabaseUnavailable, StorageUnavailable
from core.version import VERSION
from internal import bootstrap
from internal.api import upload_slots
from internal.api.app import api_routes, create_app
from internal.bootstrap import Application
from internal.services import health
from repositories import workers
from repositories.models import Job, UploadIntent
from tests.contract.databases import upgrade
from worker.exporters import formats

WAV = b"RIFF" + bytes(2000)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    settings = load_settings(_env_file=None, data_dir=tmp_path / "data", max_upload_size_mb=1, max_concurrent_uploads=2)
    app = bootstrap.build(settings)
    await upgrade(app.database)
    await app.storage.start()
    await app.broker.start()
    yield app
    await app.stop()


@pytest.fixture
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        yield http


async def left_behind(app: Application) -> tuple[int, int, int]:
    """Return the numbers of jobs, intents and objects."""
    async with app.database.read() as session:
        jobs = len((await session.execute(select(Job))).all())
        intents = len((await session.execute(select(UploadIntent))).all())
    objects = [path for path in (Path(app.settings.data_dir) / "objects").rglob("*") if path.is_file()]
    return jobs, intents, len(objects)


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    own = f'; filename="{filename}"' if filename is not None else ""
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{own}\r\n\r\n'.encode() + value + b"\r\n"


END = b"--b--\r\n"
FILE = part("file", WAV, "a.wav")


async def post(client: httpx.AsyncClient, body: bytes | Iterator[bytes], **headers: str) -> httpx.Response:
    kind = {"Content-Type": "multipart/form-data; boundary=b", **headers}
    return await client.post("/api/v1/upload", content=body, headers=kind)


async def test_an_upload_creates_a_job_and_an_object(client: httpx.AsyncClient, app: Application) -> None:
    answer = await post(client, FILE + part("language", b"en") + END)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"job_id", "status", "message", "estimated_time_seconds", "warning"}
    assert body["status"] == "PENDING"
    assert "No worker" in body["warning"]
    assert await left_behind(app) == (1, 0, 1)


BODIES = {
    "nothing": (b"", "MALFORMED_UPLOAD", 400),
    "no boundary in it": (b"hello", "MALFORMED_UPLOAD", 400),
    "no end": (FILE, "MALFORMED_UPLOAD", 400),
    "cut in the file": (FILE[:-200], "MALFORMED_UPLOAD", 400),
    "no parts": (END, "FILE_MISSING", 400),
    "file is a field": (part("file", b"x") + END, "FILE_MISSING", 400),
    "two files": (FILE + FILE + END, "INVALID_FIELD", 422),
    "a giant field": (part("language", b"x" * 9000) + FILE + END, "INVALID_FIELD", 422),
    "a thousand parts": (part("x", b"") * 1000 + FILE + END, "MALFORMED_UPLOAD", 400),
    "a giant header": (b"--b\r\nX: " + b"x" * 100_000 + b"\r\n\r\n\r\n" + END, "MALFORMED_UPLOAD", 400),
    "no disposition": (b"--b\r\nX: y\r\n\r\nz\r\n" + END, "MALFORMED_UPLOAD", 400),
    "no name": (part("file", WAV, "") + END, "UNSUPPORTED_FORMAT", 400),
    "ending only": (part("file", WAV, ".mp3") + END, "UNSUPPORTED_FORMAT", 400),
    "too large": (part("file", bytes(1_200_000), "a.wav") + END, "FILE_TOO_LARGE", 413),
    "unknown priority": (FILE + part("priority", b"now") + END, "INVALID_FIELD", 422),
    "bytes that are no text": (FILE + part("language", b"\xff\xfe") + END, "UNSUPPORTED_LANGUAGE", 422),
}


@pytest.mark.parametrize("name", sorted(BODIES))
@pytest.mark.parametrize("chunked", [False, True])
async def test_invalid_forms_leave_nothing(
    client: httpx.AsyncClient, app: Application, name: str, chunked: bool
) -> None:
    body, code, status = BODIES[name]

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 700):
            yield body[start : start + 700]

    answer = await post(client, pieces() if chunked else body)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert await left_behind(app) == (0, 0, 0)


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "multipart/form-data", "multipart/form-data; boundary=" + "b" * 300]
)
async def test_invalid_content_types_are_rejected(client: httpx.AsyncClient, kind: str) -> None:
    answer = await client.post("/api/v1/upload", content=FILE + END, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (400, "MALFORMED_UPLOAD")


async def test_an_excessive_content_length_is_rejected_before_the_body(
    client: httpx.AsyncClient, app: Application
) -> None:
    answer = await post(client, FILE + END, **{"Content-Length": "99999999"})
    assert answer.status_code == 413
    assert await left_behind(app) == (0, 0, 0)


async def test_a_silent_client_times_out(
    client: httpx.AsyncClient, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_slots, "ALLOWANCE_SECONDS", 0.1)
    never = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield FILE
        async with asyncio.timeout(1):
            await never.wait()

    with pytest.MonkeyPatch.context() as patch:
        from internal.api.routes import upload_body

        patch.setattr(upload_body, "DRAIN_SECONDS", 0.1)
        answer = await post(client, stuck())  # type: ignore[arg-type]
    assert answer.json()["code"] == "UPLOAD_TIMEOUT"
    assert await left_behind(app) == (0, 0, 0)


async def test_concurrent_uploads_are_limited(client: httpx.AsyncClient, app: Application) -> None:
    uploads = [await app.storage.open_upload(f"uploads/x/{number}") for number in range(2)]
    answer = await post(client, FILE + END)
    assert (answer.status_code, answer.json()["code"]) == (503, "TOO_MANY_UPLOADS")
    assert answer.headers["retry-after"]
    for upload in uploads:
        await upload.abort()
    assert await left_behind(app) == (0, 0, 0)


def break_dependency(
    app: Application, monkeypatch: pytest.MonkeyPatch, part: str, method: str, error: Exception
) -> None:
    """Mock a method to fail; a real server cannot fail between two of our own lines on demand."""

    def down(*_: Any, **__: Any) -> Any:
        raise error

    owner: Any = app.database if part == "database" else app.storage if part == "storage" else app.broker
    monkeypatch.setattr(type(owner), method, down)


async def test_a_storage_outage_is_503_and_leaves_nothing(
    client: httpx.AsyncClient, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_dependency(app, monkeypatch, "storage", "open_upload", StorageUnavailable())
    answer = await post(client, FILE + END)
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    assert answer.headers["retry-after"] == "5"
    assert (await left_behind(app))[0] == 0


async def test_a_database_outage_is_503(
    client: httpx.AsyncClient, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_dependency(app, monkeypatch, "database", "write", DatabaseUnavailable())
    answer = await post(client, FILE + END)
    assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert await left_behind(app) == (0, 0, 0)


async def test_uploads_are_accepted_during_a_broker_outage(client: httpx.AsyncClient, app: Application) -> None:
    await app.broker.stop()
    assert (await post(client, FILE + END)).status_code == 200
    health = await client.get("/health")
    assert health.status_code == 503
    checks = {"database": "ok", "broker": "down: BROKER_UNAVAILABLE", "storage": "ok", "disk": "ok"}
    assert health.json()["checks"] == checks
    assert (await client.get("/live")).status_code == 200
    assert (await client.get("/api/v1/stats")).status_code == 503


async def test_a_hanging_dependency_is_down(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(health, "CHECK_TIMEOUT", 0.05)
    monkeypatch.setattr(type(app.broker), "ping", hang)
    assert (await app.services.health_check.run()).checks["broker"] == "down: no answer"


async def test_an_unexpected_error_reveals_nothing(
    client: httpx.AsyncClient, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_dependency(app, monkeypatch, "database", "read", RuntimeError("secret detail"))
    for headers, text in (({}, "went wrong"), ({"Accept-Language": "vi"}, "lỗi")):
        answer = await client.get("/health", headers=headers)
        assert answer.status_code == 500
        assert answer.json()["code"] == "INTERNAL"
        assert text in answer.json()["detail"]
        assert "secret" not in answer.text


async def test_a_model_must_be_available_on_a_consumer(client: httpx.AsyncClient, app: Application) -> None:
    worker = workers.WorkerInfo("w", workers.CONSUMER, "h", 1, "0", 1, ("base-q5_0", "demo-q5_0"))
    async with app.database.write() as session:
        await workers.heartbeat(session, worker)
    answer = await post(client, FILE + part("model", b"medium") + END)
    assert answer.status_code == 422
    assert "base-q5_0, demo-q5_0" in answer.json()["detail"]
    assert answer.json()["errors"][0]["field"] == "model"
    for requested, stored in ((b"base", "base-q5_0"), (b"demo-q5_0", "demo-q5_0"), (None, "base-q5_0")):
        body = FILE + (part("model", requested) if requested else b"") + END
        job_id = (await post(client, body)).json()["job_id"]
        async with app.database.read() as session:
            assert (await session.execute(select(Job.model).where(Job.job_id == job_id))).scalar_one() == stored


async def test_request_ids_are_returned(client: httpx.AsyncClient) -> None:
    assert (await client.get("/live", headers={"X-Request-ID": "mine-1"})).headers["x-request-id"] == "mine-1"
    forged = await client.get("/live", headers={"X-Request-ID": "a b\tc" + "x" * 200})
    assert len(forged.headers["x-request-id"]) == 32
    assert (await client.get("/nowhere")).headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("PUT", "/live", 405), ("GET", "/api/v1/upload", 405), ("GET", "/api/v1/status/", 404)],
)
async def test_every_error_is_a_problem(client: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert isinstance(answer.json()["detail"], str)


async def test_an_invalid_query_is_a_problem(client: httpx.AsyncClient) -> None:
    job_id = (await post(client, FILE + END)).json()["job_id"]
    answer = await client.get(f"/api/v1/result/{job_id}", params={"partial": "maybe"})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_FIELD")


async def test_answers_omit_null_fields(client: httpx.AsyncClient) -> None:
    job_id = (await post(client, FILE + END)).json()["job_id"]
    assert (await client.get(f"/api/v1/status/{job_id}")).json()["progress"] == 0.0
    partial = (await client.get(f"/api/v1/result/{job_id}", params={"partial": True})).json()
    assert [partial[name] for name in ("text", "word_count", "duration_seconds", "processing_time")] == ["", 0, 0, 0]


HIDDEN = {
    *("/api/stt/upload", "/api/transcribe", "/api/stt/status/{job_id}", "/api/stt/result/{job_id}"),
    *("/page/{name}", "/docs"),
}


async def test_openapi_equals_the_routes(app: Application) -> None:
    http_app = create_app(app.settings, app.services)
    described = {(path, method.upper()) for path, item in http_app.openapi()["paths"].items() for method in item}
    routes = {
        (route.path, method)
        for route in api_routes()
        if route.path not in HIDDEN
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert described == routes
    assert {path for path, _ in described} == {
        *("/api/v1/upload", "/api/v1/status/{job_id}", "/api/v1/result/{job_id}", "/api/v1/download/{job_id}"),
        *("/api/v1/transcribe", "/api/v1/transcribe/{request_id}"),
        *("/api/v1/jobs", "/api/v1/jobs/{job_id}", "/api/v1/jobs/{job_id}/cancel", "/api/v1/jobs/{job_id}/retry"),
        *("/api/v1/jobs/{job_id}/events", "/api/v1/jobs/{job_id}/webhook", "/api/v1/jobs/{job_id}/start"),
        *("/api/v1/uploads", "/api/v1/uploads/{job_id}", "/v1/audio/transcriptions", "/v1/models"),
        *("/api/v1/jobs/{job_id}/media", "/api/v1/jobs/{job_id}/media-token", "/api/v1/jobs/{job_id}/peaks"),
        *("/api/v1/jobs/{job_id}/segments/{segment_id}", "/api/v1/jobs/{job_id}/segments/{segment_id}/correction"),
        *("/api/v1/jobs/{job_id}/corrections/events", "/api/v1/jobs/{job_id}/restore", "/api/v1/me"),
        *("/api/v1/admin/keys", "/api/v1/admin/figures", "/api/v1/admin/dead-letters"),
        *("/api/v1/admin/dead-letters/replay", "/api/v1/admin/dead-letters/purge"),
        *("/health", "/live", "/api/v1/stats", "/metrics", "/", "/api/v1/models", "/api/v1/models/{name}"),
    }


async def test_the_schema_lists_every_format(app: Application) -> None:
    download = create_app(app.settings, app.services).openapi()["paths"]["/api/v1/download/{job_id}"]["get"]
    described = next(item["description"] for item in download["parameters"] if item["name"] == "format")
    assert described == ", ".join(formats())


async def test_metrics_and_the_root_page(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).json() == {
        "service": "async-stt",
        "version": VERSION,
        "status": "running",
        "docs": "/docs",
    }
    await client.get("/nowhere")
    text = (await client.get("/metrics")).text
    assert "stt_http_requests_total" in text
    assert "process_cpu_seconds_total" in text
    assert (await client.get("/docs")).status_code == 200


async def test_a_refusing_broker_does_not_fail_the_submit(
    client: httpx.AsyncClient, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_dependency(app, monkeypatch, "broker", "publish", BrokerUnavailable())
    assert (await post(client, FILE + END)).status_code == 200
    async with app.database.read() as session:
        job = (await session.execute(select(Job))).scalar_one()
    assert job.due_at is not None, "the scheduler publishes it"


async def test_the_error_for_a_database_without_tables(tmp_path: Path) -> None:
    bare = bootstrap.build(load_settings(_env_file=None, data_dir=tmp_path / "bare"))
    await bare.storage.start()
    await bare.broker.start()
    assert (await bare.services.health_check.run()).checks["database"] == "down: no schema, run `make migrate`"
    await bare.stop()


async def test_a_repeated_request_with_the_same_key_creates_one_job(
    client: httpx.AsyncClient, app: Application
) -> None:
    body = FILE + part("language", b"en") + END
    first = await post(client, body, **{"Idempotency-Key": "k1"})
    second = await post(client, body, **{"Idempotency-Key": "k1"})
    assert second.json()["job_id"] == first.json()["job_id"]
    assert await left_behind(app) == (1, 0, 1)
    for other in (FILE + part("language", b"vi") + END, part("file", WAV + b"x", "a.wav") + END):
        answer = await post(client, other, **{"Idempotency-Key": "k1"})
        assert (answer.status_code, answer.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert await left_behind(app) == (1, 0, 1)
    assert (await post(client, body, **{"Idempotency-Key": "k2"})).json()["job_id"] != first.json()["job_id"]


async def test_concurrent_requests_with_the_same_key_create_one_job(
    client: httpx.AsyncClient, app: Application
) -> None:
    answers = await asyncio.gather(*(post(client, FILE + END, **{"Idempotency-Key": "k"}) for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({answer.json()["job_id"] for answer in answers}) == 1
    assert await left_behind(app) == (1, 0, 1)


@pytest.mark.parametrize("key", ["", "k" * 300])
async def test_invalid_keys_are_rejected(client: httpx.AsyncClient, app: Application, key: str) -> None:
    answer = await post(client, FILE + END, **{"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_FIELD")
    assert await left_behind(app) == (0, 0, 0)
