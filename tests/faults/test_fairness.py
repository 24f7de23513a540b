"""Who goes first: a short clip does not wait behind a long recording; high before normal before low."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.harness import Harness
from tests.servers.base import wait_until
from tests.speech import encode, recording

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]


def test_a_clip_starts_within_one_chunk_of_a_long_recording(harness: Harness, clip: Path, tmp_path: Path) -> None:
    """Far into the recording its chunks are of the lowest band, and at most the one that runs goes before the clip."""
    consumer = harness.consumer(ENGINE="tests.integration.slow_engine")
    lecture = harness.upload(encode(recording("en", 220, seed=74)[0], tmp_path / "lecture.flac"))
    wait_until(lambda: harness.service.status(lecture)["chunks_completed"] >= 17, "it is far in", 90)
    short = harness.upload(clip)
    harness.wait(short)
    assert harness.wait(lecture)["chunks_total"] > 20
    said = [
        (line["action"], line["job_id"]) for line in map(json.loads, consumer.log().splitlines()) if "job_id" in line
    ]
    between = said[said.index(("prepared", short)) : said.index(("chunk_completed", short))]
    assert len([job_id for action, job_id in between if (action, job_id) == ("chunk_completed", lecture)]) <= 2


def test_high_overtakes_normal_overtakes_low(harness: Harness, clip: Path) -> None:
    """Submitted in the worst order while nobody works, on one slot."""
    names = {name: [harness.upload(clip, priority=name) for _ in range(6)] for name in ("low", "normal", "high")}
    harness.consumer(PREPARE_CONCURRENCY="1")
    for job_ids in names.values():
        for job_id in job_ids:
            harness.wait(job_id)
    ordered = [
        str(row[0]) for row in harness.sql("SELECT job_id FROM jobs WHERE deleted_at IS NULL ORDER BY started_at")
    ]
    places = {name: [ordered.index(job_id) for job_id in job_ids] for name, job_ids in names.items()}
    # eight messages are prefetched before the first is prepared, in order of their level
    assert max(places["high"]) < min(places["low"])
    assert sum(places["high"]) < sum(places["normal"]) < sum(places["low"])
