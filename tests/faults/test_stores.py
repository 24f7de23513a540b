"""Database and storage go away at the worst moment, the disk is full; the job completes once, or fails with a word."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.harness import Harness
from tests.servers.base import Server, wait_until
from tests.servers.proxy import Cut, Proxy
from tests.speech import silence, write_wav

OUTAGE = 60.0
pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


def test_database_restarted_mid_job(
    harness: Harness, long_recording: tuple[Path, str], database_server: Server
) -> None:
    consumer = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    consumer.wait_reached()
    database_server.restart()
    consumer.let_go()
    harness.wait(job_id)


def test_database_down_for_a_minute(
    harness: Harness, long_recording: tuple[Path, str], database_server: Server
) -> None:
    """The consumer waits in place; the API says which part is down, and nothing is half-created."""
    consumer = harness.consumer("before the chunk's commit")
    job_id = harness.upload(long_recording[0])
    consumer.wait_reached()
    database_server.kill()
    consumer.let_go()
    consumer.wait_said("waiting")
    refused = harness.service.client.get(f"/api/v1/status/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) > 0
    with long_recording[0].open("rb") as file:
        answer = harness.service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert answer.status_code == 503
    health = harness.service.client.get("/health")
    assert (health.status_code, health.json()["checks"]["database"][:4]) == (503, "down")
    assert health.json()["checks"]["broker"] == "ok"
    assert harness.service.client.get("/live").status_code == 200
    over = time.monotonic() + OUTAGE
    while time.monotonic() < over:
        assert harness.service.client.get(f"/api/v1/status/{job_id}").status_code == 503
        time.sleep(2)
    database_server.start()
    harness.wait(job_id)
    assert set(harness.attempts(job_id).values()) == {1}, "what was heard before the outage is not heard again"


@pytest.mark.parametrize("delivered", [True, False], ids=["answer lost", "commit lost"])
@pytest.mark.parametrize("step", ["minio_result_path=", "working_audio_path="], ids=["completing", "planning"])
def test_the_connection_dies_in_the_commit(
    harness: Harness, long_recording: tuple[Path, str], step: str, delivered: bool
) -> None:
    """Nobody can tell whether it took effect; either way the job completes once, with its audio and its result."""
    address = urlsplit(harness.service.environment["DATABASE_URL"])
    assert address.port is not None
    line = Proxy("127.0.0.1", address.port, cut=Cut(step.encode(), b"COMMIT", delivered))
    line.start()
    try:
        url = harness.service.environment["DATABASE_URL"].replace(f":{address.port}", f":{line.port}")
        consumer = harness.consumer(DATABASE_URL=url)
        job_id = harness.upload(long_recording[0])
        harness.wait(job_id)
        assert line.cuts == 1
        consumer.kill()
    finally:
        line.stop()


@pytest.mark.parametrize("step", ["before download", "mid-chunk", "mid-finalise"])
def test_storage_down_at(harness: Harness, long_recording: tuple[Path, str], storage_server: Server, step: str) -> None:
    consumer = harness.consumer(step)
    job_id = harness.upload(long_recording[0])
    consumer.wait_reached()
    storage_server.kill()
    with long_recording[0].open("rb") as file:
        answer = harness.service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    consumer.let_go()
    consumer.wait_said("waiting")
    assert harness.service.status(job_id)["status"] in ("PENDING", "PROCESSING"), "never COMPLETED without its object"
    storage_server.start()
    harness.wait(job_id)
    assert harness.objects(job_id)["results"] == 2


def test_disk_full(harness: Harness, clip: Path, tmp_path: Path) -> None:
    """Nothing fails of it: what fits goes on, and the rest waits for a consumer that has the room."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        consumer = harness.consumer(TEMP_DIR=str(small))
        job_id = harness.upload(write_wav(tmp_path / "big.wav", silence(120) + 3000))
        consumer.wait_said("machine_fault")
        harness.wait(harness.upload(clip))
        rows = f"SELECT status, retry_count, lost, error_code FROM jobs WHERE job_id = '{job_id}'"
        assert harness.sql(rows) == [("PENDING", 0, 0, None)]
        wait_until(lambda: not list(small.rglob("*.pcm")), "the space is given back", 20)
        consumer.end()
        harness.consumer()
        harness.wait(job_id)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
