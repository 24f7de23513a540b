"""The compose file as a user runs it: `make up` in a copy of the repository, on a test's engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.containers.engine import ROOT, Engine, project_name
from tests.servers.base import wait_until

IGNORED = (".git", ".venv*", "tests", "docs", "mutants", "__pycache__", ".env", ".*_cache", ".run")
UP_SECONDS = 900.0
COMPOSE_SECONDS = 180.0
DONE_SECONDS = 180.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Deployment:
    """The project's containers.

    folder: a copy of the repository, with a `deploy/.env` of its own; real_images: the base images are not stand-ins.
    """

    def __init__(self, engine: Engine, folder: Path, *, real_images: bool) -> None:
        self.engine, self.folder, self.real_images = engine, folder, real_images
        self.earlier: str | None = None
        """The image of an earlier revision, if there is one."""
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*IGNORED))
        # another project of this name on the machine's engine would lose its containers and volumes
        self._variables = {} if engine.own else {"COMPOSE_PROJECT_NAME": project_name()}

    def build(self, network: str) -> None:
        """Build the images that `make up` then finds in the engine's cache."""
        images = {
            "async-stt:local": ("deploy/Dockerfile", "."),
            "async-stt-minio:local": ("deploy/minio.Dockerfile", "deploy"),
        }
        for tag, (file, context) in images.items():
            words = ("docker", "build", "--quiet", "--network", network, "--tag", tag, "--file", file, context)
            self.engine.run(*words, seconds=UP_SECONDS, cwd=self.folder)

    def make(self, target: str) -> str:
        return self.engine.run("make", target, seconds=UP_SECONDS, cwd=self.folder, **self._variables)

    def compose(self, *words: str, files: Sequence[str] = (), **variables: str) -> str:
        """Run Docker Compose. files: overlays in deploy/; variables: in place of those of deploy/.env."""
        overlays = [word for file in files for word in ("-f", f"deploy/{file}")]
        call = ("docker", "compose", "-f", "deploy/compose.yaml", *overlays, *words)
        return self.engine.run(*call, seconds=COMPOSE_SECONDS, cwd=self.folder, **self._variables | variables)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """Return what Docker knows of the project's containers, those that have ended included."""
        ids = self.compose("ps", "--all", "--quiet", *([service] if service else [])).split()
        found: list[dict[str, Any]] = json.loads(self.engine.docker("inspect", *ids)) if ids else []
        return found

    def secret(self, name: str) -> str:
        lines = (self.folder / "deploy" / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)[name]

    def api(self) -> httpx.Client:
        """Return a client with the generated key."""
        return self.engine.client(8000, self.secret("API_KEY"))

    def wait_for(self, workers: int) -> None:
        """Wait until the service is healthy with so many consumers."""

        def ready() -> bool:
            with self.api() as client:
                health = client.get("/health").json()
            return bool(health["status"] == "healthy" and health["workers_active"] == workers)

        wait_until(ready, f"{workers} consumers and a healthy service", DONE_SECONDS)

    def upload(self, recording: Path, language: str = "en") -> str:
        with self.api() as client, recording.open("rb") as file:
            answer = client.post("/api/v1/upload", files={"file": (recording.name, file)}, data={"language": language})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def text(self, job_id: str) -> str:
        """Wait until the job has ended and return its text."""
        with self.api() as client:

            def ended() -> bool:
                return client.get(f"/api/v1/status/{job_id}").json()["status"] in ENDED

            wait_until(ended, f"job {job_id} ends", DONE_SECONDS)
            state = client.get(f"/api/v1/status/{job_id}").json()
            assert state["status"] == "COMPLETED", f"{state}\n{self.logs()}"
            return client.get(f"/api/v1/download/{job_id}", params={"format": "txt"}).text

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "60")

    def remove(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
