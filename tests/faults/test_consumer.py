"""Consumers die, stall and race at every step of a job; it completes, and no finished chunk is heard again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.harness import Harness
from tests.servers.base import wait_until
from tests.speech import silence, word_error_rate, write_wav

pytestmark = [pytest.mark.servers, pytest.mark.speech, pytest.mark.timeout(480)]
STEPS = (
    "before claiming",
    "during download",
    "during decode",
    "before the plan",
    "after planning",
    "before claiming a chunk",
    "mid-chunk",
    "after the chunk's commit",
    "before the acknowledgement",
    "mid-finalise",
    "after the result's upload",
)


def whole(harness: Harness, job_id: str, long_recording: tuple[Path, str]) -> None:
    """COMPLETED, with every word."""
    harness.wait(job_id)
    text = harness.service.client.get(f"/api/v1/result/{job_id}").json()["text"]
    assert word_error_rate(long_recording[1], text) <= 2.5


@pytest.mark.parametrize("step", STEPS)
def test_killed_at(harness: Harness, long_recording: tuple[Path, str], step: str) -> None:
    first = harness.consumer(step)
    job_id = harness.upload(long_recording[0])
    first.wait_reached()
    finished = harness.attempts(job_id)
    first.kill()
    harness.consumer()
    whole(harness, job_id, long_recording)
    after = harness.attempts(job_id)
    assert {index: after[index] for index in finished} == finished, "a finished chunk was heard again"


def test_told_to_stop_twice_it_hands_back(harness: Harness, long_recording: tuple[Path, str]) -> None:
    """What runs past the grace period is given back uncounted; another consumer goes on at once."""
    first = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    first.wait_reached()
    first.popen.terminate()
    first.end()
    assert harness.sql(f"SELECT max(lost), max(failures) FROM chunks WHERE job_id = '{job_id}'") == [(0, 0)]
    harness.consumer()
    whole(harness, job_id, long_recording)


def test_killed_between_the_last_commit_and_finalise(harness: Harness, long_recording: tuple[Path, str]) -> None:
    first = harness.consumer("before Finalise is published")
    job_id = harness.upload(long_recording[0])
    first.wait_reached()
    finished = harness.attempts(job_id)
    first.kill()
    harness.consumer()
    whole(harness, job_id, long_recording)
    assert harness.attempts(job_id) == finished


def test_killed_before_finalising_silence(harness: Harness, tmp_path: Path) -> None:
    first = harness.consumer("before Finalise is published")
    job_id = harness.upload(write_wav(tmp_path / "silence.wav", silence(20)))
    first.wait_reached()
    first.kill()
    harness.consumer()
    assert harness.wait(job_id)["chunks_total"] == 0


def test_paused_past_the_heartbeat(harness: Harness, long_recording: tuple[Path, str]) -> None:
    """Another consumer takes over; what the paused one writes when it wakes up changes nothing."""
    paused = harness.consumer("before the chunk's commit")
    job_id = harness.upload(long_recording[0])
    paused.wait_reached()
    paused.pause()
    other = harness.consumer()
    whole(harness, job_id, long_recording)
    before = harness.sql(f"SELECT event_seq, updated_at, chunks_completed FROM jobs WHERE job_id = '{job_id}'")
    paused.resume()
    paused.let_go()
    paused.wait_said("chunk_duplicate")
    assert harness.sql(f"SELECT event_seq, updated_at, chunks_completed FROM jobs WHERE job_id = '{job_id}'") == before
    assert len(other.said("job_completed")) == 1


def test_a_chunk_that_kills_its_consumer_each_time(
    harness: Harness, long_recording: tuple[Path, str], clip: Path
) -> None:
    poison = harness.upload(long_recording[0], "poison.flac")
    good = harness.upload(clip)
    deaths = 0
    consumer = harness.consumer("dies of poison", wait=False)
    while harness.service.status(poison)["status"] in ("PENDING", "PROCESSING"):
        if consumer.popen.poll() is not None:
            deaths += 1
            harness.service.kill(consumer.name)
            assert deaths < 12, "it loops for ever"
            consumer = harness.consumer("dies of poison", wait=False)
    assert harness.wait(poison, "FAILED")["error_code"] == "WORKER_CRASH"
    [(lost, attempts)] = harness.sql(
        f"SELECT lost, attempts FROM chunks WHERE job_id = '{poison}' AND status = 'FAILED'"
    )
    assert (lost, deaths >= 5) == (6, True), f"lost {lost} runs, {attempts} attempts, {deaths} deaths"
    harness.wait(good)


def test_two_prepares_of_one_job(harness: Harness, long_recording: tuple[Path, str]) -> None:
    """Both have decoded and stored their working audio; one plan is kept, one object."""
    slow = harness.consumer("before the plan", PREPARE_CONCURRENCY="1")
    job_id = harness.upload(long_recording[0])
    slow.wait_reached()
    slow.pause()
    other = harness.consumer("before claiming a chunk")
    other.wait_reached()
    assert harness.objects(job_id)["work"] == 2
    slow.resume()
    slow.let_go()
    slow.wait_said("plan_lost")
    wait_until(lambda: harness.objects(job_id)["work"] == 1, "the loser's object is gone", 10)
    other.let_go()
    whole(harness, job_id, long_recording)


def test_prepare_redelivered_while_it_runs(harness: Harness, long_recording: tuple[Path, str]) -> None:
    """The line breaks during the decode: copies of the message change nothing while its holder lives."""
    slow = harness.consumer("during decode", PREPARE_CONCURRENCY="1")
    job_id = harness.upload(long_recording[0])
    slow.wait_reached()
    other = harness.consumer()
    harness.wake_ups(job_id, 4)
    renewed = "SELECT holder, lost, claim FROM jobs WHERE due_at > now() AND job_id = :job_id"
    before = harness.sql(renewed, job_id=job_id)
    time.sleep(8)  # two leases and a round of the scheduler: nothing is to happen, so there is nothing to wait for
    assert harness.sql(renewed, job_id=job_id) == before != []
    slow.let_go()
    whole(harness, job_id, long_recording)
    assert not other.said("prepared")
