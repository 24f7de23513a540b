"""Latency of every route at the client, one request at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.scale.stores import Stores, note
from tests.contract.filled import Size, job_id
from tests.e2e.service import Service, on_real_servers
from tests.speech import recording, write_wav

CALLS = int(os.environ.get("SCALE_CALLS", "200"))
TARGET = 0.050
"""Wanted 99th percentile in seconds."""
Send = Callable[[int], httpx.Response]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of the calls of a route or statement, in ascending order."""

    name: str
    seconds: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """Return the value that `share` (0 to 1) of the calls do not exceed."""
        return self.seconds[min(int(share * len(self.seconds)), len(self.seconds) - 1)]


def measure(stores: Stores, folder: Path) -> list[Latency]:
    """Call each route CALLS times on an API of one process, with jobs of the filled database."""
    folder.mkdir()
    clip = write_wav(folder / "clip.wav", recording("en", 1, seed=3, pause=0.2)[0])
    with on_real_servers(folder, stores.settings, ("api", "consumer")) as service:
        ended = service.upload(clip, language="en")
        service.wait(ended)
        service.kill("consumer")
        return [latency(name, send) for name, send in routes(service, stores.size, ended, clip).items()]


def latency(name: str, send: Send) -> Latency:
    """Time the calls. A response may have prepared its request before: the elapsed time is that of the last one."""
    note(name)
    seconds = []
    for number in range(CALLS + 3):
        started = time.perf_counter()
        response = send(number)
        elapsed = time.perf_counter() - started
        assert response.is_success, f"{name}: {response.status_code} {response.text[:300]}"
        seconds.append(response.extensions.get("seconds", elapsed))
    return Latency(name, tuple(sorted(seconds[3:])))  # the first ones compile statements


def routes(service: Service, size: Size, real: str, clip: Path) -> dict[str, Send]:
    """Return the calls by the name of their route. real: a job that is completed and has its objects."""
    client, audio = service.client, clip.read_bytes()

    def get(path: str) -> Send:
        return lambda number: client.get(path.format(**jobs(number)))

    def post(path: str, **request: Any) -> Send:
        return lambda number: client.post(path.format(**jobs(number)), **request)

    def jobs(number: int) -> dict[str, str]:
        return {
            "ended": job_id(100 * number + 102),
            "failed": job_id(100 * number + 100),
            "waiting": job_id(size.ended + size.waiting - 100 * number),
            "deleted": job_id(size.ended + size.waiting - 100 * number - 98),
            "running": job_id(size.ended + size.waiting + size.running - number % 10 * 100),
            "n": str(number),
        }

    def start_link(number: int) -> httpx.Response:
        """Upload through a link, and time the start of its job only."""
        link = client.post("/api/v1/uploads", json={"filename": "a.wav", "language": "en"}).json()
        client.put(link["upload_url"], content=audio).raise_for_status()
        started = time.perf_counter()
        response = client.post(f"/api/v1/jobs/{link['job_id']}/start")
        response.extensions["seconds"] = time.perf_counter() - started
        return response

    def submit_url(number: int) -> httpx.Response:
        body = {"request_id": f"bench-{number}", "media_url": "https://example.com/a.wav", "language": "en"}
        return client.post("/api/v1/transcribe", json=body, headers={"Idempotency-Key": f"bench-{number}"})

    return {
        "GET /health": get("/health"),
        "GET /live": get("/live"),
        "GET /": get("/"),
        "GET /metrics": get("/metrics"),
        "GET /api/v1/stats": get("/api/v1/stats"),
        "GET /v1/models": get("/v1/models"),
        "GET /api/v1/models": get("/api/v1/models"),
        "GET /api/v1/jobs?limit=20": get("/api/v1/jobs?limit=20"),
        "GET /api/v1/jobs?limit=200": get("/api/v1/jobs?limit=200"),
        "GET /api/v1/jobs?limit=200&status=PENDING": get("/api/v1/jobs?limit=200&status=PENDING"),
        "GET /api/v1/jobs/{waiting}": get("/api/v1/jobs/{waiting}"),
        "GET /api/v1/status/{waiting}": get("/api/v1/status/{waiting}"),
        "GET /api/v1/status/{running}": get("/api/v1/status/{running}"),
        "GET /api/v1/status/{ended}": get("/api/v1/status/{ended}"),
        "GET /api/v1/result/{running}?partial=true": get("/api/v1/result/{running}?partial=true"),
        "GET /api/v1/result/{ended}": get(f"/api/v1/result/{real}"),
        "GET /api/v1/download/{ended}?format=srt": get(f"/api/v1/download/{real}?format=srt"),
        "GET /api/v1/jobs/{ended}/events": get(f"/api/v1/jobs/{real}/events"),
        "POST /api/v1/upload": post("/api/v1/upload", files={"file": ("a.wav", audio)}, data={"language": "en"}),
        "POST /api/v1/transcribe": submit_url,
        "GET /api/v1/transcribe/{request_id}": get("/api/v1/transcribe/bench-{n}"),
        "POST /api/v1/uploads": post("/api/v1/uploads", json={"filename": "a.wav", "language": "en"}),
        "POST /api/v1/jobs/{link}/start": start_link,
        "POST /api/v1/jobs/{ended}/webhook": post("/api/v1/jobs/{failed}/webhook"),
        "POST /api/v1/jobs/{ended}/retry": post("/api/v1/jobs/{failed}/retry"),
        "POST /api/v1/jobs/{waiting}/cancel": post("/api/v1/jobs/{waiting}/cancel"),
        "DELETE /api/v1/jobs/{waiting}": lambda number: client.delete(f"/api/v1/jobs/{jobs(number)['deleted']}"),
    }
