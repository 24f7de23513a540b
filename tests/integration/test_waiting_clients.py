"""Clients that wait for a job: limits, and their disconnects."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from core.errors import StreamsExhaustedError, TooManyStreamsError
from internal.api.app import create_app
from internal.services.stream_limiter import StreamLimiter
from repositories import quotas
from tests.integration.test_access import WAV, serve_api
from tests.integration.test_after_commit import request


def form(**fields: str) -> bytes:
    sections = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    head = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    return "".join(sections).encode() + head.encode() + WAV[1] + b"\r\n--b--\r\n"


class Client:
    """An ASGI client that can disconnect."""

    def __init__(self, app: Any, method: str, path: str, body: bytes = b"") -> None:
        scope, _ = request(path, body, {"content-type": "multipart/form-data; boundary=b"})
        scope["method"] = method
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self._messages = [{"type": "http.request", "body": body, "more_body": False}]
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def disconnect(self) -> None:
        self.gone.set()
        async with asyncio.timeout(60):
            await self.task


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_the_wait_of_a_disconnected_openai_client_ends(tmp_path: Path, stream: str) -> None:
    async with serve_api(tmp_path) as (_, app):
        http_app = create_app(app.settings, app.services)
        client = Client(http_app, "POST", "/v1/audio/transcriptions", form(model="whisper-1", stream=stream))
        await eventually(lambda: app.services.job_events.watcher._watched)
        assert app.services.stream_limiter._by_owner.total() == 1
        await client.disconnect()
        await eventually(lambda: not app.services.job_events.watcher._watched)
        assert app.services.stream_limiter._by_owner.total() == 0
        async with app.database.read() as session:
            assert await quotas.count_open(session, "local") == 1, "the job continues"


async def test_an_event_stream_ends_with_its_client(tmp_path: Path) -> None:
    async with serve_api(tmp_path) as (http, app):
        job_id = (await http.post("/api/v1/upload", files={"file": WAV})).json()["job_id"]
        http_app = create_app(app.settings, app.services)
        client = Client(http_app, "GET", f"/api/v1/jobs/{job_id}/events")
        await eventually(lambda: len(client.sent) > 1)
        await client.disconnect()
        await eventually(lambda: not app.services.job_events.watcher._watched)
        assert app.services.stream_limiter._by_owner.total() == 0


async def test_event_streams_of_one_owner_are_limited(tmp_path: Path) -> None:
    async with serve_api(tmp_path, max_event_streams_per_owner=2) as (http, app):
        job_id = (await http.post("/api/v1/upload", files={"file": WAV})).json()["job_id"]
        http_app = create_app(app.settings, app.services)
        path = f"/api/v1/jobs/{job_id}/events"
        open_ones = [Client(http_app, "GET", path) for _ in range(2)]
        await eventually(lambda: all(client.sent for client in open_ones))
        refused = Client(http_app, "GET", path)
        waiting = Client(http_app, "POST", "/v1/audio/transcriptions", form(model="whisper-1"))
        for one in (refused, waiting):
            await eventually(lambda one=one: one.sent)
            assert one.sent[0]["status"] == 429
            assert b"retry-after" in dict(one.sent[0]["headers"])
        await open_ones[0].disconnect()
        replacement = Client(http_app, "GET", path)
        await eventually(lambda: replacement.sent)
        assert replacement.sent[0]["status"] == 200
        for client in (open_ones[1], replacement, refused, waiting):
            await client.disconnect()
        assert app.services.stream_limiter._by_owner.total() == 0


def test_waiting_clients_are_limited_by_owner_and_in_total() -> None:
    limiter = StreamLimiter(total=3, per_owner=2)
    slots = [limiter.acquire("a"), limiter.acquire("a"), limiter.acquire("b")]
    with pytest.raises(TooManyStreamsError):
        limiter.acquire("a")
    with pytest.raises(StreamsExhaustedError):
        limiter.acquire("c")
    slots[0].release()
    slots[0].release()
    with limiter.slot("c"), pytest.raises(StreamsExhaustedError):
        limiter.acquire("d")
    for slot in slots:
        slot.release()
    assert dict(limiter._by_owner) == {}
    unlimited = StreamLimiter(total=0, per_owner=0)
    assert len([unlimited.acquire("a") for _ in range(1000)]) == 1000


# -- quotas ----------------------------------------------------------------------------------------------------------
async def test_cancel_and_retry_cannot_exceed_the_quota(database_url: str, tmp_path: Path) -> None:
    async with serve_api(tmp_path, database_url=database_url, max_queued_jobs=2) as (client, _):
        ids = []
        for _ in range(4):
            ids.append((await client.post("/api/v1/upload", files={"file": WAV})).json()["job_id"])
            assert (await client.post(f"/api/v1/jobs/{ids[-1]}/cancel")).status_code == 202
        answers = await asyncio.gather(*(client.post(f"/api/v1/jobs/{job_id}/retry") for job_id in ids))
        assert sorted(answer.status_code for answer in answers) == [202, 202, 429, 429]
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert refused.json()["code"] == "QUOTA_EXCEEDED"
        assert int(refused.headers["retry-after"]) > 0
        running = answers[[answer.status_code for answer in answers].index(202)].json()["job_id"]
        assert (await client.post(f"/api/v1/jobs/{running}/retry")).status_code == 409, "not subject to quotas"


async def test_concurrent_submits_cannot_exceed_the_quota(database_url: str, tmp_path: Path) -> None:
    async with serve_api(tmp_path, database_url=database_url, max_queued_jobs=2) as (client, _):
        bodies = [{"request_id": f"r-{n}", "media_url": "http://example.com/a.mp3"} for n in range(8)]
        answers = await asyncio.gather(*(client.post("/api/v1/transcribe", json=body) for body in bodies))
        assert sorted(answer.status_code for answer in answers) == [202] * 2 + [429] * 6
