"""`stt demo`: start the embedded service, transcribe the sample recordings, print their text, and stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "assets" / "samples"
DATA = ROOT / ".run" / "demo"
READY_SECONDS = 60.0
"""Seconds that the service may take to start."""
DONE_SECONDS = 180.0
"""Seconds that all samples together may take."""
console = Console(highlight=False)


def run() -> int:
    """Run the demo; return the exit status, 0 if every sample was transcribed."""
    DATA.mkdir(parents=True, exist_ok=True)
    with service() as url, httpx.Client(base_url=url, timeout=30) as client:
        console.print(f"async-stt is running at {url}; uploading the samples …")
        jobs = {path: upload(client, path) for path in samples()}
        statuses = watch(client, jobs)
        for path, job_id in jobs.items():
            show(client, path, job_id, statuses[job_id])
    return 0 if all(status == "COMPLETED" for status in statuses.values()) else 1


def samples() -> list[Path]:
    """Return the recordings, named `{name}.{language}.{extension}`."""
    return sorted(path for path in SAMPLES.iterdir() if path.suffix in (".mp3", ".ogg", ".wav", ".m4a", ".opus"))


def language_of(path: Path) -> str:
    return path.suffixes[-2].lstrip(".")


@contextmanager
def service() -> Iterator[str]:
    """Run the embedded service as a child process on a free port, logging to a file; yield its URL."""
    port = free_port()
    environment = os.environ | {
        "API_PORT": str(port),
        "DATA_DIR": str(DATA),
        "TEMP_DIR": str(DATA / "tmp"),
        "LOG_FORMAT": "json",
    }
    log = DATA / "service.log"
    with log.open("wb") as output:
        command = [sys.executable, str(ROOT / "cmd" / "embedded" / "main.py")]
        child = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=DATA)
    try:
        yield ready(child, f"http://127.0.0.1:{port}", log)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(60)


def free_port() -> int:
    """Return a free loopback port below the range that outgoing connections use."""
    for port in range(8100, 8300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise SystemExit("No free port between 8100 and 8299.")


def ready(child: subprocess.Popen[bytes], url: str, log: Path) -> str:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and child.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=2).json()["workers_active"]:
                return url
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"The service did not start; its log is {log}:\n{log.read_text()[-2000:]}")


def upload(client: httpx.Client, path: Path) -> str:
    with path.open("rb") as file:
        fields = {"language": language_of(path)}
        response = client.post("/api/v1/upload", files={"file": (path.name, file)}, data=fields)
    response.raise_for_status()
    return str(response.json()["job_id"])


def watch(client: httpx.Client, jobs: dict[Path, str]) -> dict[str, str]:
    """Poll until every job has ended, showing a progress bar for each; return the statuses by job id."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    statuses: dict[str, str] = {}
    end = time.monotonic() + DONE_SECONDS
    with Progress(*columns, console=console) as progress:
        bars = {job_id: progress.add_task(path.name, total=100) for path, job_id in jobs.items()}
        while len(statuses) < len(jobs) and time.monotonic() < end:
            for job_id, bar in bars.items():
                state = client.get(f"/api/v1/status/{job_id}").json()
                progress.update(bar, completed=state["progress"])
                if state["status"] in ("COMPLETED", "FAILED", "CANCELLED"):
                    statuses[job_id] = state["status"]
            time.sleep(0.2)
    return {job_id: statuses.get(job_id, "still running") for job_id in jobs.values()}


def show(client: httpx.Client, path: Path, job_id: str, status: str) -> None:
    console.print(f"\n[bold]{path.name}[/bold] ({language_of(path)}): {status}")
    if status != "COMPLETED":
        state: dict[str, Any] = client.get(f"/api/v1/status/{job_id}").json()
        console.print(f"  {state.get('error_code')}: {state.get('error_message')}")
        return
    result = client.get(f"/api/v1/result/{job_id}").json()
    console.print(f"  {result['text']}", soft_wrap=True)
    times = f"{result['duration_seconds']:.1f} s of audio in {result['processing_time']:.1f} s"
    console.print(f"  {times}, model {result['model']}, confidence {result['confidence']:.2f}")
    console.print(f"  result file: {DATA / 'objects' / result['minio_result_path']}", soft_wrap=True)
