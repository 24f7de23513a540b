"""Consumers that crash, stall or race at each step of a job: it completes, and no completed chunk is repeated."""

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


def check_transcript(harness: Harness, job_id: str, spoken: tuple[Path, str]) -> None:
    """Wait for the job and compare its text with the recording's."""
    harness.wait(job_id)
    text = harness.service.client.get(f"/api/v1/result/{job_id}").json()["text"]
    assert word_error_rate(spoken[1], text) <= 2.5


@pytest.mark.parametrize("step", STEPS)
def test_a_job_completes_after_its_consumer_is_killed(
    harness: Harness, long_recording: tuple[Path, str], step: str
) -> None:
    first = harness.consumer(step)
    job_id = harness.upload(long_recording[0])
    first.wait_for_step()
    finished = harness.attempts(job_id)
    first.kill()
    harness.consumer()
    check_transcript(harness, job_id, long_recording)
    after = harness.attempts(job_id)
    assert {index: after[index] for index in finished} == finished, "a completed chunk was transcribed again"


def test_a_prepare_killed_between_instalments_is_continued(harness: Harness, three_minutes: tuple[Path, str]) -> None:
    """The first chunks have text while Prepare runs; the next Prepare continues after them, and repeats none."""
    first = harness.consumer("between instalments")
    job_id = harness.upload(three_minutes[0])
    first.wait_for_step()
    released = harness.sql(f"SELECT count(*) FROM chunks WHERE job_id = '{job_id}'")[0][0]
    assert released >= 1
    wait_until(lambda: len(harness.attempts(job_id)) == released, "the released chunks are transcribed", 40)
    assert harness.service.status(job_id)["chunks_total"] is None
    before = harness.attempts(job_id)
    first.kill()
    second = harness.consumer()
    check_transcript(harness, job_id, three_minutes)
    after = harness.attempts(job_id)
    assert {index: after[index] for index in before} == before, "a completed chunk was transcribed again"
    assert len(second.log_entries("plan_continued")) == 1
    assert harness.sql(f"SELECT plan, count(*) FROM chunks WHERE job_id = '{job_id}' GROUP BY plan") == [
        (1, len(after))
    ]


def test_a_late_instalment_of_a_paused_consumer_changes_nothing(
    harness: Harness, three_minutes: tuple[Path, str]
) -> None:
    paused = harness.consumer("between instalments")
    job_id = harness.upload(three_minutes[0])
    paused.wait_for_step()
    paused.pause()
    harness.consumer()
    check_transcript(harness, job_id, three_minutes)
    before = harness.sql(f"SELECT event_seq, updated_at FROM jobs WHERE job_id = '{job_id}'")
    paused.resume()
    paused.release()
    paused.wait_for_log("plan_lost")
    assert harness.sql(f"SELECT event_seq, updated_at FROM jobs WHERE job_id = '{job_id}'") == before


def test_a_second_sigterm_still_hands_the_work_back(harness: Harness, long_recording: tuple[Path, str]) -> None:
    """Work that exceeds the grace period is handed back without counting, and another consumer continues at once."""
    first = harness.consumer("mid-chunk")
    job_id = harness.upload(long_recording[0])
    first.wait_for_step()
    first.popen.terminate()
    first.stop()
    assert harness.sql(f"SELECT max(lost), max(failures) FROM chunks WHERE job_id = '{job_id}'") == [(0, 0)]
    harness.consumer()
    check_transcript(harness, job_id, long_recording)


def test_a_crash_between_the_last_commit_and_finalise_is_recovered(
    harness: Harness, long_recording: tuple[Path, str]
) -> None:
    first = harness.consumer("before Finalise is published")
    job_id = harness.upload(long_recording[0])
    first.wait_for_step()
    finished = harness.attempts(job_id)
    first.kill()
    harness.consumer()
    check_transcript(harness, job_id, long_recording)
    assert harness.attempts(job_id) == finished


def test_a_crash_before_finalising_a_silent_job_is_recovered(harness: Harness, tmp_path: Path) -> None:
    first = harness.consumer("before Finalise is published")
    job_id = harness.upload(write_wav(tmp_path / "silence.wav", silence(20)))
    first.wait_for_step()
    first.kill()
    harness.consumer()
    assert harness.wait(job_id)["chunks_total"] == 0


def test_late_writes_of_a_paused_consumer_change_nothing(harness: Harness, long_recording: tuple[Path, str]) -> None:
    """Another consumer takes over; whatever the paused one writes after it resumes changes nothing."""
    paused = harness.consumer("before the chunk's commit")
    job_id = harness.upload(long_recording[0])
    paused.wait_for_step()
    paused.pause()
    other = harness.consumer()
    check_transcript(harness, job_id, long_recording)
    before = harness.sql(f"SELECT event_seq, updated_at, chunks_completed FROM jobs WHERE job_id = '{job_id}'")
    paused.resume()
    paused.release()
    paused.wait_for_log("chunk_duplicate")
    assert harness.sql(f"SELECT event_seq, updated_at, chunks_completed FROM jobs WHERE job_id = '{job_id}'") == before
    assert len(other.log_entries("job_completed")) == 1


def test_a_chunk_that_always_kills_its_consumer_fails_its_job(
    harness: Harness, long_recording: tuple[Path, str], clip: Path
) -> None:
    poison = harness.upload(long_recording[0], "poison.flac")
    healthy = harness.upload(clip)
    crashes = 0
    consumer = harness.consumer("killed by poison", wait=False)
    while harness.service.status(poison)["status"] in ("PENDING", "PROCESSING"):
        if consumer.popen.poll() is not None:
            crashes += 1
            harness.service.kill(consumer.name)
            assert crashes < 12, "the consumer keeps crashing"
            consumer = harness.consumer("killed by poison", wait=False)
    assert harness.wait(poison, "FAILED")["error_code"] == "WORKER_CRASH"
    [(lost, attempts)] = harness.sql(
        f"SELECT lost, attempts FROM chunks WHERE job_id = '{poison}' AND status = 'FAILED'"
    )
    assert (lost, crashes >= 5) == (6, True), f"lost {lost} runs, {attempts} attempts, {crashes} crashes"
    harness.wait(healthy)


def test_two_concurrent_prepares_keep_one_plan(harness: Harness, long_recording: tuple[Path, str]) -> None:
    """Both decode and store their working audio; one plan and one object are kept."""
    slow = harness.consumer("before the plan", PREPARE_CONCURRENCY="1")
    job_id = harness.upload(long_recording[0])
    slow.wait_for_step()
    slow.pause()
    other = harness.consumer("before claiming a chunk")
    other.wait_for_step()
    assert harness.objects(job_id)["work"] == 2
    slow.resume()
    slow.release()
    slow.wait_for_log("plan_lost")
    wait_until(lambda: harness.objects(job_id)["work"] == 1, "the other Prepare's object is removed", 10)
    other.release()
    check_transcript(harness, job_id, long_recording)


def test_a_redelivered_prepare_changes_nothing_while_it_runs(
    harness: Harness, long_recording: tuple[Path, str]
) -> None:
    """The broker connection breaks during the decode: redelivered copies change nothing while the consumer runs."""
    slow = harness.consumer("during decode", PREPARE_CONCURRENCY="1")
    job_id = harness.upload(long_recording[0])
    slow.wait_for_step()
    other = harness.consumer()
    harness.publish_wake_ups(job_id, 4)
    renewed = "SELECT holder, lost, claim FROM jobs WHERE due_at > now() AND job_id = :job_id"
    before = harness.sql(renewed, job_id=job_id)
    time.sleep(8)  # two leases and a round of the scheduler: nothing should happen, so there is no event to wait for
    assert harness.sql(renewed, job_id=job_id) == before != []
    slow.release()
    check_transcript(harness, job_id, long_recording)
    assert not other.log_entries("prepared")
