"""Engine processes that crash, hang or run out of memory every time: three retries, FAILED and a dead letter."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.domain.job import JobStatus
from tests.faults.harness import Harness
from tests.integration.bad_engines import CRASH, EXIT, FINE, HANG, KILL, MEMORY
from tests.speech import silence, write_wav

pytestmark = [pytest.mark.servers, pytest.mark.timeout(480)]
FAILURES = {
    "segfault": (CRASH, "WORKER_CRASH"),
    "exit": (EXIT, "WORKER_CRASH"),
    "hang": (HANG, "TIMEOUT"),
    "killed": (KILL, "OUT_OF_MEMORY"),
    "no-memory": (MEMORY, "OUT_OF_MEMORY"),
}


def test_jobs_whose_engine_process_always_fails_are_dead_lettered(harness: Harness, tmp_path: Path) -> None:
    consumer = harness.consumer(
        ENGINE="tests.integration.bad_engines", CHUNK_TIMEOUT_SECONDS="0.5", WORKER_CONCURRENCY="2"
    )
    failing = {name: harness.upload(recording(tmp_path, name, behaviour)) for name, (behaviour, _) in FAILURES.items()}
    healthy = [harness.upload(recording(tmp_path, f"fine-{number}", FINE)) for number in range(5)]
    for job_id in healthy:
        harness.wait(job_id)
    for name, job_id in failing.items():
        state = harness.wait(job_id, "FAILED")
        assert state["error_code"] == FAILURES[name][1], name
        [(retries, attempts, status)] = harness.sql(
            "SELECT retry_count, attempts, chunks.status FROM jobs JOIN chunks USING (job_id) "
            f"WHERE job_id = '{job_id}'"
        )
        assert (retries, attempts, status) == (3, 4, JobStatus.FAILED), name
        assert harness.sql(f"SELECT replay_token FROM jobs WHERE job_id = '{job_id}'")[0][0], (
            "the job has a dead letter"
        )
    assert consumer.popen.poll() is None
    harness.wait(harness.upload(recording(tmp_path, "after", FINE)))


def recording(folder: Path, name: str, behaviour: int) -> Path:
    """Write loud audio whose first sample selects the engine's behaviour."""
    audio = silence(2) + 3000
    audio[0] = behaviour
    return write_wav(folder / f"{name}.wav", audio)
