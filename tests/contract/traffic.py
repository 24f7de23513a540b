"""Requests and rounds that use every route, a consumer and the scheduler once."""

from __future__ import annotations

import asyncio
import inspect
import math
from pathlib import Path
from typing import Any

import httpx
from starlette.routing import Match

from internal import bootstrap
from internal.api.app import create_app
from internal.bootstrap import Application
from internal.scheduler.lease_guard import LeaseGuard
from internal.scheduler.sampler import Sampler
from repositories import webhooks
from tests.clients.external_server import ExternalServer
from tests.contract.filled import Size

BASE = "http://127.0.0.1:8000"


class Client:
    """A client that notes the routes it has called."""

    def __init__(self, app: Application) -> None:
        self.services = app.services
        self._app = create_app(app.settings, app.services)
        # other addresses, such as that of a storage, are reached through the network
        mounts = {BASE: httpx.ASGITransport(self._app)}
        self._http = httpx.AsyncClient(mounts=mounts, base_url=BASE, timeout=60)
        self.missing = {route.endpoint for route in self._app.state.api_routes}

    async def call(self, method: str, path: str, expected: int = 200, **request: Any) -> httpx.Response:
        answer = await self._http.request(method, path, **request)
        assert answer.status_code == expected, f"{method} {path}: {answer.status_code} {answer.text[:300]}"
        scope = {"type": "http", "method": method, "path": answer.request.url.path}
        for route in self._app.state.api_routes:
            if route.matches(scope)[0] is Match.FULL:
                self.missing.discard(route.endpoint)
        return answer

    async def ended(self, job_id: str) -> str:
        async with asyncio.timeout(60):
            while True:
                status = (await self.call("GET", f"/api/v1/status/{job_id}")).json()["status"]
                if status not in ("PENDING", "PROCESSING"):
                    return str(status)
                await asyncio.sleep(0.05)


async def use_the_queue(client: Client, size: Size) -> None:
    """Call the routes that need no consumer, with jobs of the filled database."""
    waiting, running, ended = size.waiting_id, size.running_id, size.ended_id
    for path in ("/health", "/live", "/", "/metrics", "/api/v1/stats", "/v1/models", "/docs", "/page/docs.css"):
        await client.call("GET", path)
    for path in ("/me", "/admin/dead-letters", "/admin/keys", "/admin/figures", "/jobs?name=a.wav", "/jobs?name=none"):
        await client.call("GET", f"/api/v1{path}")
    for path in ("replay", "purge"):
        await client.call("POST", f"/api/v1/admin/dead-letters/{path}", json={"job_id": waiting})
    await client.call("GET", "/api/v1/models")
    await client.call("POST", "/api/v1/models", 202, json={"model": "base-q5_1"})
    await client.call("DELETE", "/api/v1/models/base-q5_1", 202)
    for path in ("", "?limit=200", "?limit=200&status=PENDING", "?limit=10&status=FAILED", "?limit=10&language=en"):
        await client.call("GET", f"/api/v1/jobs{path}")
    page = (await client.call("GET", "/api/v1/jobs?limit=100")).json()
    await client.call("GET", f"/api/v1/jobs?limit=100&cursor={page['next_cursor']}")
    for one in (waiting, running, ended):
        await client.call("GET", f"/api/v1/jobs/{one}")
        await client.call("GET", f"/api/v1/status/{one}")
        await client.call("GET", f"/api/v1/result/{one}?partial=true")
    await client.call("GET", "/api/v1/transcribe/request-200", 404)
    await client.call("GET", f"/api/v1/jobs/{ended}/events")
    await client.call("POST", f"/api/v1/jobs/{ended}/webhook", 202)
    await client.call("POST", f"/api/v1/jobs/{ended}/retry", 202)
    await client.call("POST", f"/api/v1/jobs/{ended}/cancel", 202)
    await client.call("GET", f"/api/v1/jobs/{ended}/media", 410)
    await client.call("POST", f"/api/v1/jobs/{ended}/media-token", 410)
    await client.call("GET", f"/api/v1/jobs/{ended}/peaks", 404)
    await client.call("DELETE", f"/api/v1/jobs/{ended}?undo=true", 204)
    await client.call("POST", f"/api/v1/jobs/{ended}/restore")
    await client.call("DELETE", f"/api/v1/jobs/{ended}", 204)
    await client.call("GET", f"/api/v1/jobs/{ended}/corrections/events", 404)
    await client.call("DELETE", f"/api/v1/jobs/{waiting}", 204)


async def use_a_consumer(client: Client, sample: Path, external: ExternalServer) -> None:
    """Submit a recording in every way and wait for its end."""
    file = {"file": (sample.name, sample.read_bytes())}
    fields = {"language": "en", "callback_url": external.url("/hook")}
    uploaded = (await client.call("POST", "/api/v1/upload", files=file, data=fields)).json()["job_id"]
    assert await client.ended(uploaded) == "COMPLETED"
    await client.call("GET", f"/api/v1/result/{uploaded}")
    await client.call("GET", f"/api/v1/download/{uploaded}?format=srt")
    await client.call("GET", f"/api/v1/jobs/{uploaded}/events")
    path = f"/api/v1/jobs/{uploaded}/segments/0"
    await client.call("PUT", path, json={"text": "corrected"}, headers={"If-Match": '"0"'})
    await client.call("DELETE", f"{path}/correction", headers={"If-Match": '"1"'})
    changes = client.services.corrections.follow(uploaded, 0)
    await anext(changes)
    await changes.aclose()
    await client.call("POST", "/v1/audio/transcriptions", files=file, data={"model": "whisper-1", "language": "en"})
    body = {"request_id": "by-url", "media_url": external.url("/hello.mp3"), "language": "en"}
    key = {"Idempotency-Key": "by-url"}
    for _ in range(2):
        await client.call("POST", "/api/v1/transcribe", 202, json=body, headers=key)
    link = (await client.call("POST", "/api/v1/uploads", 201, json={"filename": sample.name, "language": "en"})).json()
    await client.call("PUT", link["upload_url"], content=sample.read_bytes())
    await client.call("POST", f"/api/v1/jobs/{link['job_id']}/start", 202)
    assert await client.ended(link["job_id"]) == "COMPLETED"
    bad = {"file": ("a.wav", b"RIFF" + bytes(2000))}
    refused = (await client.call("POST", "/api/v1/upload", files=bad, data=fields)).json()["job_id"]
    assert await client.ended(refused) == "FAILED"


async def use_the_scheduler(app: Application, rounds: int = 3) -> None:
    """Run every step of the scheduler, as the only one and after all leases have lapsed."""
    maintenance = bootstrap.maintenance(app)
    methods = inspect.getmembers(type(maintenance), inspect.iscoroutinefunction)
    steps = [getattr(maintenance, name) for name, _ in methods if name[0] != "_"]
    maintenance.guard = LeaseGuard(lease=0.0, max_gap=math.inf)
    for _ in range(rounds):
        for step in steps:
            await step()
        await Sampler(app.database, app.broker, app.storage).sample()
    deliverer = bootstrap.webhook_deliverer(app)
    await deliverer.fill()
    await deliverer.stop()
    async with app.database.read() as session:
        await webhooks.list_leased(session)
