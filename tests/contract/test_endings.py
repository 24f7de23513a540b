"""Rows of attempts, jobs and chunks after their end, and after a job is reopened."""

from __future__ import annotations

import pytest

from core.database import Database
from core.domain.job import JobStatus
from core.errors import WhisperCrashError
from repositories import deletion, failures
from repositories.claims import Claim, WakeUp
from tests.contract import invariants
from tests.contract.rows import chunk, claim, commit, job, planned_job, run_chunk


async def claim_chunk(database: Database, job_id: str, index: int = 0) -> Claim:
    claimed = await claim(database, job_id, index)
    assert claimed is not None
    return claimed.claim


async def test_a_failed_attempt_waits_for_its_retry_with_its_error(database: Database) -> None:
    job_id = await planned_job(database, 1)
    claimed = await claim_chunk(database, job_id)
    async with database.write() as session:
        assert await failures.retry_later(session, claimed, WhisperCrashError(), 2.0) == 1
    row = await chunk(database, job_id, 0)
    assert (row.status, row.holder, row.failures) == (JobStatus.PENDING, None, 1)
    assert row.error_code == WhisperCrashError.code
    assert row.first_failed_at is not None
    assert row.due_at is not None


async def test_a_chunk_handed_back_waits(database: Database) -> None:
    job_id = await planned_job(database, 1)
    claimed = await claim_chunk(database, job_id)
    async with database.write() as session:
        assert await failures.hand_back(session, claimed)
    row = await chunk(database, job_id, 0)
    assert (row.status, row.holder, row.failures, row.lost) == (JobStatus.PENDING, None, 0, 0)
    assert row.error_code is None


@pytest.mark.parametrize("ending", ["cancel", "fail", "delete"])
async def test_a_running_chunk_loses_its_claim_when_its_job_ends(database: Database, ending: str) -> None:
    job_id = await planned_job(database, 2)
    await claim_chunk(database, job_id)
    before = await chunk(database, job_id, 0)
    assert (before.status, bool(before.holder), bool(before.due_at)) == (JobStatus.PROCESSING, True, True)
    async with database.write() as session:
        if ending == "cancel":
            assert await failures.cancel_job(session, job_id, "local")
        elif ending == "fail":
            assert await failures.fail_job(session, job_id, WhisperCrashError(), "token")
        else:
            assert await deletion.mark_deleted(session, job_id, "local")
    for index in (0, 1):
        row = await chunk(database, job_id, index)
        assert (row.status, row.holder, row.due_at) == (JobStatus.PENDING, None, None)


async def test_an_ended_job_has_the_time_of_its_end(database: Database) -> None:
    cancelled, failed = await planned_job(database, 1), await planned_job(database, 1)
    async with database.write() as session:
        assert await failures.cancel_job(session, cancelled, "local", ttl=60)
        assert await failures.fail_job(session, failed, WhisperCrashError(), "token", ttl=60)
    for job_id in (cancelled, failed):
        row = await job(database, job_id)
        assert row.completed_at is not None
        assert row.expires_at is not None
        assert 55 < (row.expires_at - row.completed_at).total_seconds() < 65
    assert (await job(database, cancelled)).cancel_requested_at is not None
    assert (await job(database, failed)).cancel_requested_at is None


async def test_a_reopened_job_has_no_trace_of_its_end(database: Database) -> None:
    job_id = await planned_job(database, 2)
    await run_chunk(database, job_id, 1)
    claimed = await claim_chunk(database, job_id)
    async with database.write() as session:
        assert await failures.fail_job(session, job_id, WhisperCrashError(), "token", claim=claimed, ttl=60)
    assert (await chunk(database, job_id, 0)).error_code == WhisperCrashError.code
    async with database.write() as session:
        assert await failures.retry_job(session, job_id, "local") == [WakeUp(job_id, 0, 0)]
    reopened, missing = await job(database, job_id), await chunk(database, job_id, 0)
    assert (reopened.status, reopened.completed_at, reopened.expires_at) == (JobStatus.PROCESSING, None, None)
    assert (missing.status, missing.failures, missing.lost) == (JobStatus.PENDING, 0, 0)
    for row in (reopened, missing):
        assert (row.error_code, row.error_message, row.first_failed_at) == (None, None, None)
    assert (await chunk(database, job_id, 1)).status == JobStatus.COMPLETED


async def test_a_late_commit_of_a_deleted_job_makes_nothing_due(database: Database) -> None:
    job_id = await planned_job(database, 3, first_release=1)
    claimed = await claim(database, job_id, 0)
    assert claimed is not None
    async with database.write() as session:
        assert await deletion.mark_deleted(session, job_id, "local")
    effects = await commit(database, claimed)
    assert effects is not None
    assert effects.wake_ups == ()
    await invariants.check(database)


async def test_a_late_last_commit_of_a_deleted_job_releases_no_finalise(database: Database) -> None:
    job_id = await planned_job(database, 1)
    claimed = await claim(database, job_id, 0)
    assert claimed is not None
    async with database.write() as session:
        assert await deletion.mark_deleted(session, job_id, "local")
    effects = await commit(database, claimed)
    assert effects is not None
    assert not effects.finalise
    await invariants.check(database)
