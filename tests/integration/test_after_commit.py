"""From the COMMIT on, an accepted job keeps its recording and its answer, whatever fails afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select, update

from core.config import load_settings
from core.database import after
from core.errors import BrokerUnavailable, DatabaseUnavailable, SettingsError
from core.messaging.port import Message
from internal import bootstrap
from internal.api.app import create_app
from internal.bootstrap import Application
from internal.services import estimates, publishing
from internal.services.estimates import Estimator
from repositories.models import Job, UploadIntent
from tests.contract.databases import upgrade
from tests.integration.test_access import serve_api
from tests.servers.minio import Bucket

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF' + bytes(3000) + b"\r\n"
    b'--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--b--\r\n'
)
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
SUBMIT = {"request_id": "r-1", "media_url": "http://example.com/a.mp3", "language": "en"}


class Step:
    """A driver of a coroutine that cancels it once, at its k-th suspension; `waits` counts the suspensions reached."""

    def __init__(self, work: Awaitable[Any], cancel_at: int) -> None:
        self._work, self._cancel_at = work, cancel_at
        self.waits = 0
        self.cancelled = False

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        try:
            waiting = next(inner)
            while True:
                if self.waits == self._cancel_at:
                    self.cancelled = True
                    self.waits += 1
                    waiting = inner.throw(asyncio.CancelledError())
                    continue
                self.waits += 1
                yield waiting
                waiting = inner.send(None)
        except StopIteration as end:
            return end.value


async def drive(step: Step) -> None:
    with contextlib.suppress(asyncio.CancelledError, DatabaseUnavailable):
        await step


def request(path: str, body: bytes, headers: dict[str, str]) -> tuple[dict[str, Any], Callable[[], Awaitable[Any]]]:
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(b"host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    return scope, receive


async def send(_: object) -> None:
    await asyncio.sleep(0)


@pytest.fixture(params=["local", pytest.param("minio", marks=pytest.mark.servers)])
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Application]:
    stores: dict[str, Any] = {}
    if request.param == "minio":
        bucket: Bucket = request.getfixturevalue("minio_bucket")
        stores = {
            "storage": "minio",
            "minio_endpoint": bucket.endpoint,
            "minio_access_key": bucket.access_key,
            "minio_secret_key": bucket.secret_key,
            "minio_bucket": bucket.bucket,
            "allow_default_credentials": True,
        }
    app = bootstrap.build(load_settings(_env_file=None, data_dir=tmp_path / "data", **stores))
    await upgrade(app.database)
    await app.storage.start()
    await app.broker.start()
    yield app
    await app.stop()


async def check_consistency(app: Application) -> int:
    """Check that every job has its object and every other object an intent; return the number of jobs."""
    async with app.database.write() as session:
        jobs = {row.job_id: row for row in (await session.execute(select(Job))).scalars()}
        noted = {row.key for row in (await session.execute(select(UploadIntent))).scalars()}
    for job in jobs.values():
        if job.minio_audio_path is not None:
            assert await app.storage.stat(job.minio_audio_path), f"the job {job.job_id} lost its recording"
            assert job.minio_audio_path not in noted, "the collector would remove it"
    return len(jobs)


@pytest.mark.parametrize("key", [None, "once"])
async def test_an_accepted_job_keeps_its_recording_when_cancelled_at_any_await(
    app: Application, key: str | None
) -> None:
    """A server's shutdown cancels its requests at any await."""
    http_app = create_app(app.settings, app.services)
    accepted, at, previous = 0, 0, 0
    while True:
        headers = MULTIPART | ({"idempotency-key": f"{key}-{at}"} if key else {})
        scope, receive = request("/api/v1/upload", BODY, headers)
        step = Step(http_app(scope, receive, send), at)
        await drive(step)
        accepted, previous = await check_consistency(app), accepted
        if not step.cancelled:
            break
        at += 1
    assert at > 20, "the awaits of a submit"
    assert accepted > 1, "some were cancelled after their COMMIT"
    assert accepted == previous + 1
    async with app.database.write() as session:
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
    await app.retention.collect_abandoned_objects()
    assert await check_consistency(app) == accepted


async def test_a_request_cancelled_during_a_hanging_publish(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        hanging.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(app.broker, "publish", hang)
    scope, receive = request("/api/v1/upload", BODY, MULTIPART)
    task = asyncio.create_task(create_app(app.settings, app.services)(scope, receive, send))
    async with asyncio.timeout(60):
        await hanging.wait()
    task.cancel()
    await asyncio.wait([task])
    assert await check_consistency(app) == 1


async def refuse(*_: object, **__: object) -> None:
    raise SettingsError("stt_jobs: declared with other arguments")


async def break_off(*_: object, **__: object) -> None:
    raise RuntimeError("a bug in a library")


async def refuse_connection(*_: object, **__: object) -> None:
    raise BrokerUnavailable


@pytest.mark.parametrize("publish", [refuse, break_off, refuse_connection])
async def test_no_broker_error_reaches_the_client(
    app: Application, monkeypatch: pytest.MonkeyPatch, publish: Callable[..., Awaitable[None]]
) -> None:
    monkeypatch.setattr(app.broker, "publish", publish)
    transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answers = [
            await client.post("/api/v1/upload", content=BODY, headers=MULTIPART),
            await client.post("/api/v1/transcribe", json=SUBMIT),
        ]
        job_id = answers[0].json()["job_id"]
        answers.append(await client.post(f"/api/v1/jobs/{job_id}/cancel"))
        answers.append(await client.post(f"/api/v1/jobs/{job_id}/retry"))
    assert [answer.status_code for answer in answers] == [200, 202, 202, 202]
    assert await check_consistency(app) == 2


async def test_a_hanging_publish_does_not_delay_the_answer(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: Message) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(app.broker, "publish", hang)
    monkeypatch.setattr(publishing, "PUBLISH_TIMEOUT", 0.1)
    transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        async with asyncio.timeout(60):
            answer = await client.post("/api/v1/upload", content=BODY, headers=MULTIPART)
    assert answer.status_code == 200
    assert await check_consistency(app) == 1


async def test_a_commit_of_unknown_outcome_leaves_the_object_to_the_collector(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome of a refused COMMIT is unknown: object and intent stay, and the collector removes both."""
    write = app.database.write

    @contextlib.asynccontextmanager
    async def torn() -> AsyncIterator[Any]:
        async with write() as session:
            yield session
            jobs = (await session.execute(select(Job))).all()
            if jobs:
                raise DatabaseUnavailable

    transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        with monkeypatch.context() as patch:
            patch.setattr(app.database, "write", torn)
            answer = await client.post("/api/v1/upload", content=BODY, headers=MULTIPART)
    assert (answer.status_code, await check_consistency(app)) == (503, 0)
    async with app.database.write() as session:
        noted = (await session.execute(select(UploadIntent.key))).scalars().all()
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
    assert len(noted) == 1
    assert await app.storage.stat(noted[0])
    await app.retention.collect_abandoned_objects()
    assert await app.storage.stat(noted[0]) is None


async def test_the_collector_keeps_objects_of_jobs(app: Application) -> None:
    """Cases: an intent left over after the COMMIT, and one that expires while the job is being created."""
    http_app = create_app(app.settings, app.services)
    scope, receive = request("/api/v1/upload", BODY, MULTIPART)
    await http_app(scope, receive, send)
    async with app.database.write() as session:
        job = (await session.execute(select(Job))).scalar_one()
        session.add(UploadIntent(key=job.minio_audio_path, job_id=job.job_id, expires_at=after(-1)))
    await app.retention.collect_abandoned_objects()
    assert await check_consistency(app) == 1


async def test_an_upload_with_an_expired_intent_creates_no_job(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("repositories.intents.LIFETIME", -1.0)
    monkeypatch.setattr("repositories.intents.create.__defaults__", (-1.0,))
    transport = httpx.ASGITransport(create_app(app.settings, app.services), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.post("/api/v1/upload", content=BODY, headers=MULTIPART)
    assert (answer.status_code, answer.json()["code"]) == (408, "UPLOAD_TIMEOUT")
    assert await check_consistency(app) == 0


# -- the answer ------------------------------------------------------------------------------------------------------
async def test_an_estimate_never_fails_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object) -> None:
        raise DatabaseUnavailable

    async def broken(*_: object) -> None:
        raise RuntimeError("division by an unforeseen zero")

    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(estimates, "TIMEOUT", 0.1)
    for number, fault in enumerate((gone, broken, hang)):
        async with serve_api(tmp_path / str(number)) as (client, _):
            monkeypatch.setattr(Estimator, "_estimate", fault)
            answer = await client.post("/api/v1/upload", content=BODY, headers=MULTIPART)
            assert (answer.status_code, answer.json()["estimated_time_seconds"]) == (200, None)
            job_id = answer.json()["job_id"]
            link = (await client.post("/api/v1/uploads", json={"filename": "a.wav"})).json()
            await client.put(link["upload_url"], content=b"RIFF" + bytes(100))
            for method, path in (
                ("GET", f"/api/v1/status/{job_id}"),
                ("GET", f"/api/v1/jobs/{job_id}"),
                ("POST", f"/api/v1/jobs/{job_id}/cancel"),
                ("POST", f"/api/v1/jobs/{job_id}/retry"),
                ("POST", f"/api/v1/jobs/{link['job_id']}/start"),
                ("POST", f"/api/v1/jobs/{link['job_id']}/start"),
            ):
                answer = await client.request(method, path)
                assert answer.status_code in (200, 202), (path, answer.text)
            listed = (await client.get("/api/v1/jobs")).json()["jobs"]
            assert [job["estimated_time_seconds"] for job in listed] == [None, None]


@pytest.mark.parametrize("path", ["/cancel", "/retry", "/start"])
async def test_a_database_outage_after_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Whatever the answer would read after the COMMIT is left out."""
    async with serve_api(tmp_path) as (client, app):
        if path == "/start":
            link = (await client.post("/api/v1/uploads", json={"filename": "a.wav"})).json()
            job_id = link["job_id"]
            await client.put(link["upload_url"], content=b"RIFF" + bytes(100))
        else:
            job_id = (await client.post("/api/v1/upload", content=BODY, headers=MULTIPART)).json()["job_id"]
        if path == "/retry":
            await client.post(f"/api/v1/jobs/{job_id}/cancel")
        read, write = app.database.read, app.database.write
        committed = False

        @contextlib.asynccontextmanager
        async def until_commit(session: Callable[[], Any], *, writes: bool) -> AsyncIterator[Any]:
            nonlocal committed
            if committed:
                raise DatabaseUnavailable
            async with session() as opened:
                yield opened
                state = (await opened.execute(select(Job.status).where(Job.job_id == job_id))).scalar_one_or_none()
            committed = writes and state == ("CANCELLED" if path == "/cancel" else "PENDING")

        with monkeypatch.context() as patch:
            patch.setattr(app.database, "read", lambda: until_commit(read, writes=False))
            patch.setattr(app.database, "write", lambda: until_commit(write, writes=True))
            answer = await client.post(f"/api/v1/jobs/{job_id}{path}")
        assert committed
        assert answer.status_code == 202, answer.text


async def test_stored_statistics_are_bounded(tmp_path: Path) -> None:
    """File extensions and model names come from clients."""
    async with serve_api(tmp_path) as (client, app):
        await client.post("/api/v1/upload", content=BODY, headers=MULTIPART)
        async with app.database.read() as session:
            job = (await session.execute(select(Job))).scalar_one()
            session.expunge(job)
        estimator = Estimator(app.database)
        for number in range(estimates.MAX_CACHED + 50):
            job.model = f"m{number}"
            job.audio_duration_seconds = 1.0
            await estimator.seconds(job)
        assert len(estimator._cache) <= estimates.MAX_CACHED


async def test_first_estimates_are_compared_with_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compared() -> float:
        return REGISTRY.get_sample_value("stt_estimate_error_ratio_sum") or 0.0

    async def ten(*_: object) -> float:
        return 10.0

    monkeypatch.setattr(Estimator, "_estimate", ten)
    monkeypatch.setattr(estimates, "MAX_REMEMBERED", 3)
    async with serve_api(tmp_path) as (_, app):
        estimator = Estimator(app.database)
        for number in range(5):
            await estimator.seconds(Job(job_id=str(number), status="PENDING"))
        assert list(estimator._first) == ["2", "3", "4"]
        before = compared()
        in_20_seconds = datetime.now(UTC) + timedelta(seconds=20)
        for number, status in ((0, "COMPLETED"), (3, "FAILED"), (4, "COMPLETED"), (4, "COMPLETED")):
            await estimator.seconds(Job(job_id=str(number), status=status, completed_at=in_20_seconds))
    assert compared() - before == pytest.approx(2.0, abs=0.2)
    assert list(estimator._first) == ["2"]
