"""Database and storage go away at the worst moment, the disk is full; the job completes once, or fails with a word."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.faults.stage import Stage
from tests.servers.base import Server, wait_until
from tests.servers.proxy import Cut, Proxy
from tests.speech import silence, write_wav

OUTAGE = 60.0
pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


def test_database_restarted_mid_job(here: Stage, long: tuple[Path, str], database_server: Server) -> None:
    consumer = here.consumer("mid-chunk")
    job_id = here.upload(long[0])
    consumer.wait_reached()
    database_server.restart()
    consumer.let_go()
    here.wait(job_id)


def test_database_down_for_a_minute(here: Stage, long: tuple[Path, str], database_server: Server) -> None:
    """The consumer waits in place; the API says which part is down, and nothing is half-created."""
    consumer = here.consumer("before the chunk's commit")
    job_id = here.upload(long[0])
    consumer.wait_reached()
    database_server.kill()
    consumer.let_go()
    consumer.wait_said("waiting")
    refused = here.service.client.get(f"/api/v1/status/{job_id}")
    assert (refused.status_code, refused.json()["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert int(refused.headers["retry-after"]) > 0
    with long[0].open("rb") as file:
        answer = here.service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert answer.status_code == 503
    health = here.service.client.get("/health")
    assert (health.status_code, health.json()["checks"]["database"][:4]) == (503, "down")
    assert health.json()["checks"]["broker"] == "ok"
    assert here.service.client.get("/live").status_code == 200
    over = time.monotonic() + OUTAGE
    while time.monotonic() < over:
        assert here.service.client.get(f"/api/v1/status/{job_id}").status_code == 503
        time.sleep(2)
    database_server.start()
    here.wait(job_id)
    assert set(here.attempts(job_id).values()) == {1}, "what was heard before the outage is not heard again"


@pytest.mark.parametrize("delivered", [True, False], ids=["answer lost", "commit lost"])
@pytest.mark.parametrize("step", ["minio_result_path=", "working_audio_path="], ids=["completing", "planning"])
def test_the_connection_dies_in_the_commit(here: Stage, long: tuple[Path, str], step: str, delivered: bool) -> None:
    """Nobody can tell whether it took effect; either way the job completes once, with its audio and its result."""
    address = urlsplit(here.service.environment["DATABASE_URL"])
    assert address.port is not None
    line = Proxy("127.0.0.1", address.port, cut=Cut(step.encode(), b"COMMIT", delivered))
    line.start()
    try:
        url = here.service.environment["DATABASE_URL"].replace(f":{address.port}", f":{line.port}")
        consumer = here.consumer(DATABASE_URL=url)
        job_id = here.upload(long[0])
        here.wait(job_id)
        assert line.cuts == 1
        consumer.kill()
    finally:
        line.stop()


@pytest.mark.parametrize("step", ["before download", "mid-chunk", "mid-finalise"])
def test_storage_down_at(here: Stage, long: tuple[Path, str], storage_server: Server, step: str) -> None:
    consumer = here.consumer(step)
    job_id = here.upload(long[0])
    consumer.wait_reached()
    storage_server.kill()
    with long[0].open("rb") as file:
        answer = here.service.client.post("/api/v1/upload", files={"file": ("a.flac", file)})
    assert (answer.status_code, answer.json()["code"]) == (503, "STORAGE_UNAVAILABLE")
    consumer.let_go()
    consumer.wait_said("waiting")
    assert here.service.status(job_id)["status"] in ("PENDING", "PROCESSING"), "never COMPLETED without its object"
    storage_server.start()
    here.wait(job_id)
    assert here.objects(job_id)["results"] == 2


def test_disk_full(here: Stage, clip: Path, tmp_path: Path) -> None:
    """Nothing fails of it: what fits goes on, and the rest waits for a consumer that has the room."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        consumer = here.consumer(TEMP_DIR=str(small))
        job_id = here.upload(write_wav(tmp_path / "big.wav", silence(120) + 3000))
        consumer.wait_said("machine_fault")
        here.wait(here.upload(clip))
        rows = f"SELECT status, retry_count, lost, error_code FROM jobs WHERE job_id = '{job_id}'"
        assert here.sql(rows) == [("PENDING", 0, 0, None)]
        wait_until(lambda: not list(small.rglob("*.pcm")), "the space is given back", 20)
        consumer.end()
        here.consumer()
        here.wait(job_id)
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
