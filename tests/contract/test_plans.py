"""Plans of PostgreSQL on a filled database: no statement costs more because the tables or the queue have grown.

The statements are those that the routes, a consumer and the scheduler send while each works once.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Match

from core.config import load_settings
from internal import bootstrap
from internal.api.app import create_app
from internal.bootstrap import Application
from internal.scheduler.lease_guard import LeaseGuard
from internal.scheduler.sampler import Sampler
from internal.services.request_counter import RequestCounter
from repositories import webhooks
from tests.clients.external_server import ExternalServer
from tests.contract.filled import Size, filled_database
from tests.contract.plans import recorded_plans
from tests.servers.postgres import Postgres

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]
SIZE = Size()
ACCEPTED: dict[str, str] = {}
"""Part of a statement whose plan grows, and the reason for which it may."""


@pytest.fixture(scope="module")
def filled_url(shared_postgres: Postgres) -> Iterator[str]:
    with filled_database(shared_postgres, SIZE) as url:
        yield url


class Client:
    """A client that notes the routes it has called."""

    def __init__(self, app: Application) -> None:
        self._app = create_app(app.settings, app.services)
        transport = httpx.ASGITransport(self._app)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", timeout=60)
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


async def test_no_plan_grows(filled_url: str, tmp_path: Path, sample: Path, external_server: ExternalServer) -> None:
    app = bootstrap.build(
        load_settings(
            _env_file=None,
            data_dir=tmp_path / "data",
            temp_dir=tmp_path / "tmp",
            database_url=filled_url,
            engine="tests.benchmarks.instant_engine",
            worker_concurrency=1,
            media_url_allowed_hosts=external_server.host,
            webhook_allowed_hosts=external_server.host,
        )
    )
    await app.storage.start()
    await app.broker.start()
    client = Client(app)
    with recorded_plans(app.database) as plans:
        await use_the_queue(client)
        consumer = bootstrap.consumer(app)
        await consumer.start()
        await use_a_consumer(client, sample, external_server)
        await consumer.stop()
        await use_the_scheduler(app)
        await app.services.api_keys.ensure_configured()
        await RequestCounter(app.database).count("local", 10)
    await app.stop()
    grown = {
        statement: reasons
        for statement, reasons in plans.problems.items()
        if not any(part in statement for part in ACCEPTED)
    }
    text = "\n\n".join(f"{statement}\n  -- " + "\n  -- ".join(sorted(why)) for statement, why in grown.items())
    assert not grown, f"{len(grown)} of {len(plans.statements)} statements cost more as tables grow:\n{text}"
    assert client.missing == set(), "routes that were not called"


async def use_the_queue(client: Client) -> None:
    """Call the routes that need no consumer, with jobs of the filled database."""
    waiting, running, ended = SIZE.waiting_id, SIZE.running_id, SIZE.ended_id
    for path in ("/health", "/live", "/", "/metrics", "/api/v1/stats", "/v1/models"):
        await client.call("GET", path)
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
    await client.call("DELETE", f"/api/v1/jobs/{ended}", 204)
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


async def use_the_scheduler(app: Application) -> None:
    """Run every step of the scheduler, as the only one and after all leases have lapsed."""
    maintenance = bootstrap.maintenance(app)
    steps = [step for name, step in inspect.getmembers(maintenance, inspect.iscoroutinefunction) if name[0] != "_"]
    maintenance.guard = LeaseGuard(lease=0.0, max_gap=math.inf)
    for _ in range(3):
        for step in steps:
            await step()
    await Sampler(app.database, app.broker, app.storage).sample()
    deliverer = bootstrap.webhook_deliverer(app)
    await deliverer.fill()
    await deliverer.stop()
    async with app.database.read() as session:
        await webhooks.list_leased(session)
