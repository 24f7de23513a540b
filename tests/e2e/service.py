"""The whole service as it is deployed: separate processes, settings in the environment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.servers import postgres, rabbitmq
from tests.servers.base import free_port, get, launch, pauses, wait_until
from tests.servers.minio import Minio
from tests.servers.postgres import Postgres
from tests.servers.rabbitmq import RabbitMQ

ROOT = Path(__file__).resolve().parents[2]
DONE_SECONDS = 90.0


@dataclass
class Service:
    """A running service. client: talks to the API; processes: by name; folder: data, logs, temporary files."""

    url: str
    folder: Path
    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=30, verify=False)

    def start(self, name: str, kind: str | None = None, *command: str, **environment: str) -> None:
        """Start `cmd/{kind}/main.py`, or the given `command`, as `name`, with `environment` added to the settings."""
        command = command or (sys.executable, str(ROOT / "cmd" / (kind or name) / "main.py"))
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = launch(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, cwd=self.folder
            )

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(40)
            process.kill()
        self.client.close()

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def children(self) -> list[psutil.Process]:
        """Return all descendants of the service's processes."""
        children: list[psutil.Process] = []
        for process in self.processes.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                children += psutil.Process(process.pid).children(recursive=True)
        return children

    def wait_ready(self, *, workers: bool = True) -> None:
        """Wait until the service is healthy. workers: also wait for an active consumer."""

        def ready() -> bool:
            health = get(f"{self.url}/health", 5).json()
            return bool((health["workers_active"] or not workers) and health["status"] == "healthy")

        try:
            wait_until(ready, "the service is healthy", 60)
        except TimeoutError as error:
            raise RuntimeError(self.logs()) from error

    def upload(self, path: Path, name: str | None = None, **fields: str) -> str:
        with path.open("rb") as file:
            answer = self.client.post("/api/v1/upload", files={"file": (name or path.name, file)}, data=fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def status(self, job_id: str) -> dict[str, Any]:
        state: dict[str, Any] = self.client.get(f"/api/v1/status/{job_id}").json()
        return state

    def wait(self, job_id: str, seconds: float = DONE_SECONDS) -> dict[str, Any]:
        """Poll until the job has ended."""
        end = time.monotonic() + seconds
        for pause in pauses():
            state = self.status(job_id)
            assert state["progress"] is not None
            if state["status"] in ("COMPLETED", "FAILED", "CANCELLED"):
                return state
            if time.monotonic() >= end:
                break
            time.sleep(pause)
        raise AssertionError(f"{self.status(job_id)}\n{self.logs()}")

    def transcribe(self, path: Path, **fields: str) -> dict[str, Any]:
        """Upload, wait and return the result. Fail the test unless the job is COMPLETED."""
        job_id = self.upload(path, **fields)
        state = self.wait(job_id)
        assert state["status"] == "COMPLETED", f"{state}\n{self.logs()}"
        result: dict[str, Any] = self.client.get(f"/api/v1/result/{job_id}").json()
        return result


def settings(folder: Path, port: int, **more: str) -> dict[str, str]:
    """Return a clean environment; the developer's own settings do not leak in."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **inherited,
        "API_PORT": str(port),
        "API_WORKERS": "1",
        "DATA_DIR": str(folder / "data"),
        "TEMP_DIR": str(folder / "tmp"),
        "LOG_FORMAT": "json",
        "ENGINE": "whisper_cpp_wheel",
        **more,
    }


def stores_of(database: Postgres, broker: RabbitMQ, storage: Minio) -> dict[str, str]:
    """Return the settings for a new database, virtual host and bucket on these servers."""
    return {
        "DATABASE_URL": postgres.create_database(database.url),
        "BROKER": "rabbitmq",
        "RABBITMQ_URL": rabbitmq.create_vhost(broker),
        "STORAGE": "minio",
        "MINIO_ENDPOINT": storage.endpoint,
        "MINIO_ACCESS_KEY": storage.access_key,
        "MINIO_SECRET_KEY": storage.secret_key,
        "MINIO_BUCKET": f"t{uuid.uuid4().hex[:16]}",
        "ALLOW_DEFAULT_CREDENTIALS": "true",
    }


@contextlib.contextmanager
def embedded(folder: Path, **more: str) -> Iterator[Service]:
    port = free_port()
    service = Service(f"http://127.0.0.1:{port}", folder, settings(folder, port, **more))
    try:
        service.start("embedded")
        service.wait_ready()
        yield service
    finally:
        service.stop()


@contextlib.contextmanager
def on_real_servers(
    folder: Path, stores: dict[str, str], kinds: tuple[str, ...] = ("api", "consumer", "scheduler")
) -> Iterator[Service]:
    """Run each of `kinds` as its own process. stores: the settings of the real servers."""
    port = free_port()
    service = Service(f"http://127.0.0.1:{port}", folder, settings(folder, port, **stores))
    migrate = [sys.executable, "-m", "internal.cli", "migrate"]
    subprocess.run(migrate, env=service.environment, cwd=ROOT, check=True, capture_output=True)
    try:
        for name in kinds:
            service.start(name)
        service.wait_ready(workers="consumer" in kinds)
        yield service
    finally:
        service.stop()
