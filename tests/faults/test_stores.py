"""Database and storage outages at critical moments, and a full disk: the job completes once or fails with a reason."""

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


def test_a_job_survives_a_database_restart(
    harness: Harness, long_recording: tuple[Path, str], database_server: Server
) -> None:
    consumer = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    consumer.wait_for_step()
    database_server.restart()
    consumer.release()
    harness.wait(job_id)


def test_a_job_survives_a_minute_without_the_database(
    harness: Harness, long_recording: tuple[Path, str], database_server: Server
) -> None:
    """The consumer waits; the API names the dependency that is down and creates nothing half-finished."""
    consumer = harness.consumer("before the chunk's commit")
    job_id = harness.upload(long_recording[0])
    consumer.wait_for_step()
    database_server.kill()
    consumer.release()
    consumer.wait_for_log("waiting")
    answer = harness.service.client.get(f"/api/v1/status/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert int(answer.headers["retry-after"]) > 0
    with long_recording[0].open("rb") as file:
        answer = harness.service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert answer.status_code == 503
    health = harness.service.client.get("/health")
    assert (health.status_code, health.json()["checks"]["database"][:4]) == (503, "down")
    assert health.json()["checks"]["broker"] == "ok"
    assert harness.service.client.get("/live").status_code == 200
    end = time.monotonic() + OUTAGE
    while time.monotonic() < end:
        assert harness.service.client.get(f"/api/v1/status/{job_id}").status_code == 503
        time.sleep(2)
    database_server.start()
    harness.wait(job_id)
    assert set(harness.attempts(job_id).values()) == {1}, "chunks completed before the outage must not run again"


@pytest.mark.parametrize("delivered", [True, False], ids=["answer lost", "commit lost"])
@pytest.mark.parametrize("step", ["minio_result_path=", "working_audio_path="], ids=["completing", "planning"])
def test_a_connection_lost_during_commit_completes_the_job_once(
    harness: Harness, long_recording: tuple[Path, str], step: str, delivered: bool
) -> None:
    """The outcome of the COMMIT is unknown; the job completes once, with its audio and its result."""
    address = urlsplit(harness.service.environment["DATABASE_URL"])
    assert address.port is not None
    proxy = Proxy("127.0.0.1", address.port, cut=Cut(step.encode(), b"COMMIT", delivered))
    proxy.start()
    try:
        url = harness.service.environment["DATABASE_URL"].replace(f":{address.port}", f":{proxy.port}")
        consumer = harness.consumer(DATABASE_URL=url)
        job_id = harness.upload(long_recording[0])
        harness.wait(job_id)
        assert proxy.cuts == 1
        consumer.kill()
    finally:
        proxy.stop()


@pytest.mark.parametrize("step", ["before download", "mid-chunk", "mid-finalise"])
def test_a_job_survives_a_storage_outage(
    harness: Harness, long_recording: tuple[Path, str], storage_server: Server, step: str
) -> None:
    consumer = harness.consumer(step)
    job_id = harness.upload(long_recording[0])
    consumer.wait_for_step()
    storage_server.kill()
    with long_recording[0].open("rb") as file:
        answer = harness.service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    consumer.release()
    consumer.wait_for_log("waiting")
    assert harness.service.status(job_id)["status"] in ("PENDING", "PROCESSING"), "COMPLETED without its object"
    storage_server.start()
    harness.wait(job_id)
    assert harness.objects(job_id)["results"] == 2


def test_a_full_disk_fails_no_job(harness: Harness, clip: Path, tmp_path: Path) -> None:
    """Small jobs continue and the large one waits for a consumer with enough space."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        consumer = harness.consumer(TEMP_DIR=str(small))
        job_id = harness.upload(write_wav(tmp_path / "big.wav", silence(120) + 3000))
        consumer.wait_for_log("machine_fault")
        harness.wait(harness.upload(clip))
        rows = f"SELECT status, retry_count, lost, error_code FROM jobs WHERE job_id = '{job_id}'"
        assert harness.sql(rows) == [("PENDING", 0, 0, None)]
        wait_until(lambda: not list(small.rglob("*.pcm")), "the temporary file is removed", 20)
        consumer.stop()
        harness.consumer()
        harness.wait(job_id)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
