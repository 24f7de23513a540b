"""Fairness: a short clip does not wait behind a long recording; high priority runs before normal before low."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.harness import Harness
from tests.servers.base import wait_until
from tests.speech import encode, recording

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


def test_a_clip_waits_for_at_most_one_chunk_of_a_long_recording(harness: Harness, clip: Path, tmp_path: Path) -> None:
    """The later chunks of a recording are in the lowest band, so at most the running one precedes the clip."""
    consumer = harness.consumer(ENGINE="tests.integration.slow_engine")
    lecture_job = harness.upload(encode(recording("en", 220, seed=74)[0], tmp_path / "lecture.flac"))
    wait_until(
        lambda: harness.service.status(lecture_job)["chunks_completed"] >= 17, "seventeen chunks are completed", 90
    )
    clip_job = harness.upload(clip)
    harness.wait(clip_job)
    assert harness.wait(lecture_job)["chunks_total"] > 20
    entries = [
        (line["action"], line["job_id"]) for line in map(json.loads, consumer.log().splitlines()) if "job_id" in line
    ]
    between = entries[entries.index(("prepared", clip_job)) : entries.index(("chunk_completed", clip_job))]
    assert len([job_id for action, job_id in between if (action, job_id) == ("chunk_completed", lecture_job)]) <= 2


def test_jobs_run_in_order_of_priority(harness: Harness, clip: Path) -> None:
    """Jobs are submitted in reverse order of priority before the only consumer starts."""
    names = {name: [harness.upload(clip, priority=name) for _ in range(6)] for name in ("low", "normal", "high")}
    harness.consumer(PREPARE_CONCURRENCY="1")
    for job_ids in names.values():
        for job_id in job_ids:
            harness.wait(job_id)
    ordered = [
        str(row[0]) for row in harness.sql("SELECT job_id FROM jobs WHERE deleted_at IS NULL ORDER BY started_at")
    ]
    places = {name: [ordered.index(job_id) for job_id in job_ids] for name, job_ids in names.items()}
    # eight messages are prefetched, in order of priority, before the first is prepared
    assert max(places["high"]) < min(places["low"])
    assert sum(places["high"]) < sum(places["normal"]) < sum(places["low"])
