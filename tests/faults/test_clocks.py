"""A machine's clock that is an hour off, more than one scheduler, and a rolling restart under load."""

from __future__ import annotations

import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import Service
from tests.faults.harness import Harness
from tests.servers.base import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(600)]
CLIENTS = 4
PAUSE = 0.8
"""Seconds between two submits of a client: enough load for every restart, and few more jobs than that takes."""


@pytest.mark.parametrize("offset", ["+3600s", "-3600s"])
def test_a_clock_an_hour_off_expires_nothing_early(harness: Harness, clip: Path, offset: str) -> None:
    """The database's clock counts: nothing expires early, no claim lapses, no consumer is considered dead."""
    with harness.schedulers_paused():
        check_skewed_scheduler(harness, clip, offset)


def check_skewed_scheduler(harness: Harness, clip: Path, offset: str) -> None:
    harness.consumer(RESULT_TTL_SECONDS="1800")
    slow = harness.consumer("mid-chunk", RESULT_TTL_SECONDS="1800")
    job_ids = [harness.upload(clip) for _ in range(6)]
    slow.wait_for_step()
    past = "now() - interval '1 second'"
    harness.sql(
        f"INSERT INTO upload_intents (key, job_id, expires_at) VALUES ('uploads/x/y', gen_random_uuid(), {past})"
    )
    # MinIO rejects clients whose clock is off, so this scheduler works on local storage
    clock = {"LD_PRELOAD": str(faketime()), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    harness.service.start(f"skewed{offset}", "scheduler", STORAGE="local", **clock)
    skewed = harness.process(f"skewed{offset}")
    try:
        skewed.wait_for_log("intent_collected")
        slow.release()
        for job_id in job_ids:
            harness.wait(job_id)
            assert harness.service.client.get(f"/api/v1/result/{job_id}").status_code == 200
            assert harness.sql(f"SELECT max(lost), max(attempts) FROM chunks WHERE job_id = '{job_id}'") == [(0, 1)]
        [line] = skewed.log_entries("scheduler_started")
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["timestamp"])).total_seconds()) > 3000
        assert not skewed.log_entries("job_expired")
        assert harness.service.client.get("/health").json()["workers_active"] >= 2
    finally:
        skewed.kill()


def faketime() -> Path:
    """Return the library that gives a process another clock."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None and not os.environ.get("CI"):
        pytest.skip("faketime is missing: apt-get install faketime")
    assert library is not None, "faketime is missing: apt-get install faketime"
    return library


def test_jobs_complete_during_a_rolling_restart(harness: Harness, clip: Path) -> None:
    """Every process receives SIGTERM and is replaced while clients submit with retries: all their jobs complete."""
    engine = "tests.integration.slow_engine"
    consumers = [harness.consumer(ENGINE=engine), harness.consumer(ENGINE=engine)]
    restarted = threading.Event()

    def submit_until_restarted() -> list[str]:
        accepted = [submit(harness.service, clip)]
        while not restarted.wait(PAUSE):
            accepted.append(submit(harness.service, clip))
        return accepted

    with ThreadPoolExecutor(CLIENTS) as threads:
        clients = [threads.submit(submit_until_restarted) for _ in range(CLIENTS)]
        try:
            for consumer in consumers:
                harness.consumer(ENGINE=engine)
                consumer.stop()
            for name, kind in (("scheduler", "scheduler"), ("scheduler-2", "scheduler"), ("api", "api")):
                harness.process(name).stop()
                harness.service.start(name, kind)
            harness.service.wait_ready()
        finally:
            restarted.set()
        job_ids = [job_id for client in clients for job_id in client.result()]
    assert len(set(job_ids)) == len(job_ids)
    harness.submitted += job_ids[:20]
    listed = ",".join(f"'{job_id}'" for job_id in job_ids)
    count = f"SELECT count(*) FROM jobs WHERE job_id IN ({listed}) AND status = 'COMPLETED'"
    wait_until(lambda: harness.sql(count)[0][0] == len(job_ids), "all jobs are completed", 200)
    transcribed = f"SELECT count(*) FROM metrics WHERE metric_name = 'chunk_seconds' AND job_id IN ({listed})"
    assert harness.sql(transcribed)[0][0] == len(job_ids)
    uncompleted = f"SELECT coalesce(sum(lost), 0), coalesce(sum(failures), 0) FROM chunks WHERE job_id IN ({listed})"
    assert harness.sql(uncompleted) == [(0, 0)], "a graceful shutdown loses no attempt"


def submit(service: Service, clip: Path) -> str:
    """Submit as a careful client does: retry with the same key until there is an answer."""
    key, data = uuid.uuid4().hex, clip.read_bytes()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            answer = httpx.post(
                f"{service.url}/api/v1/upload",
                files={"file": (clip.name, data)},
                data={"language": "en"},
                headers={"Idempotency-Key": key},
                timeout=30,
                verify=False,
            )
        except httpx.TransportError:
            time.sleep(0.2)
            continue
        if answer.status_code == 200:
            return str(answer.json()["job_id"])
        assert answer.status_code == 503, answer.text
    raise AssertionError("no answer within a minute")
