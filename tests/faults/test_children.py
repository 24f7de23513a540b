"""The engine's process dies, hangs or runs out of memory every time: three retries, FAILED, a letter; others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.domain.job import JobStatus
from tests.faults.harness import Harness
from tests.integration.bad_engines import CRASH, EXIT, FINE, HANG, KILL, MEMORY
from tests.speech import silence, write_wav

pytestmark = [pytest.mark.servers, pytest.mark.timeout(480)]
FATES = {
    "segfault": (CRASH, "WORKER_CRASH"),
    "exit": (EXIT, "WORKER_CRASH"),
    "hang": (HANG, "TIMEOUT"),
    "killed": (KILL, "OUT_OF_MEMORY"),
    "no-memory": (MEMORY, "OUT_OF_MEMORY"),
}


def test_children_that_fail_every_time(harness: Harness, tmp_path: Path) -> None:
    consumer = harness.consumer(
        ENGINE="tests.integration.bad_engines", CHUNK_TIMEOUT_SECONDS="0.5", WORKER_CONCURRENCY="2"
    )
    doomed = {name: harness.upload(recording(tmp_path, name, fate)) for name, (fate, _) in FATES.items()}
    fine = [harness.upload(recording(tmp_path, f"fine-{number}", FINE)) for number in range(5)]
    for job_id in fine:
        harness.wait(job_id)
    for name, job_id in doomed.items():
        state = harness.wait(job_id, "FAILED")
        assert state["error_code"] == FATES[name][1], name
        [(retries, attempts, status)] = harness.sql(
            "SELECT retry_count, attempts, chunks.status FROM jobs JOIN chunks USING (job_id) "
            f"WHERE job_id = '{job_id}'"
        )
        assert (retries, attempts, status) == (3, 4, JobStatus.FAILED), name
        assert harness.sql(f"SELECT replay_token FROM jobs WHERE job_id = '{job_id}'")[0][0], "there is a letter"
    assert consumer.popen.poll() is None
    harness.wait(harness.upload(recording(tmp_path, "after", FINE)))


def recording(folder: Path, name: str, fate: int) -> Path:
    """Loud sound whose first sample tells the engine what to do."""
    sound = silence(2) + 3000
    sound[0] = fate
    return write_wav(folder / f"{name}.wav", sound)
