"""Claims and commits on both databases."""

from __future__ import annotations

import asyncio
import random

import pytest
from sqlalchemy import update

from core.database import Database, after
from core.domain.job import JobStatus
from core.errors import ChunkTimeoutError
from repositories import claims, commits, failures, job_statistics, plans
from repositories.claims import ClaimRequest
from repositories.models import Job, UploadIntent
from tests.contract import invariants
from tests.contract.rows import (
    LEASE,
    WORKER,
    chunk,
    claim,
    commit,
    expire,
    finalise,
    indexes,
    job,
    lapse,
    new_job,
    plan,
    planned_job,
    run_chunk,
)


async def test_a_chunk_is_claimed_once(database: Database) -> None:
    job_id = await planned_job(database, 1)
    assert await claim(database, job_id) is not None
    assert await claim(database, job_id, worker="worker-2") is None


async def test_a_message_of_an_earlier_attempt_claims_nothing(database: Database) -> None:
    job_id = await planned_job(database, 1)
    assert await claim(database, job_id, failures=1) is None


async def test_only_a_lapsed_lease_is_taken_over_and_counted_as_lost(database: Database) -> None:
    job_id = await planned_job(database, 1)
    first = await claim(database, job_id)
    await expire(database, job_id)
    assert await claim(database, job_id, worker="worker-2") is None, "only the scheduler releases a lease"
    assert await lapse(database, job_id) == 1
    second = await claim(database, job_id, worker="worker-2")
    assert first is not None
    assert second is not None
    assert (first.claim.lost, second.claim.lost) == (0, 1)
    assert second.claim.number == first.claim.number + 1


async def test_a_claim_repeated_after_a_lost_answer_finds_its_own_row(database: Database) -> None:
    job_id = await planned_job(database, 1)
    request = ClaimRequest(WORKER, LEASE)
    async with database.write() as session:
        assert await claims.claim_chunk(session, job_id, 0, 0, request) is not None
    async with database.write() as session:
        again = await claims.claim_chunk(session, job_id, 0, 0, request)
        assert await claims.claim_chunk(session, job_id, 0, 0, ClaimRequest(WORKER, LEASE)) is None, (
            "the lease of another call"
        )
    assert again is not None
    assert again.claim.lost == 0


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.PROCESSING])
async def test_chunks_are_claimed_only_while_the_job_is_processing(database: Database, status: JobStatus) -> None:
    job_id = await planned_job(database, 1)
    async with database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(status=status))
    assert await claim(database, job_id) is None


async def test_a_deleted_job_is_not_claimed(database: Database) -> None:
    job_id = await planned_job(database, 1)
    async with database.write() as session:
        await session.execute(update(Job).where(Job.job_id == job_id).values(deleted_at=after()))
    assert await claim(database, job_id) is None


async def test_prepare_is_claimed_once_and_only_without_a_plan(database: Database) -> None:
    job_id = await new_job(database)
    async with database.write() as session:
        taken = await claims.claim_prepare(session, job_id, 0, ClaimRequest(WORKER, LEASE))
    assert taken is not None
    assert taken[1].started_at is not None
    async with database.write() as session:
        assert await claims.claim_prepare(session, job_id, 0, ClaimRequest(WORKER, LEASE)) is None
        assert await plans.store_plan(session, job_id, plan(1, job_id=job_id)) is not None
    async with database.write() as session:
        assert await claims.claim_prepare(session, job_id, 0, ClaimRequest(WORKER, LEASE)) is None


async def test_two_prepares_store_one_plan(database: Database) -> None:
    job_id = await planned_job(database, 2)
    async with database.write() as session:
        assert await plans.store_plan(session, job_id, plan(3, number=2)) is None
    row = await job(database, job_id)
    assert (row.plan, row.chunks_total, row.working_audio_path) == (1, 2, f"work/{job_id}/1.pcm")


async def test_a_chunk_is_committed_once(database: Database) -> None:
    job_id = await planned_job(database, 2)
    first = await claim(database, job_id)
    await lapse(database, job_id)
    second = await claim(database, job_id, worker="worker-2")
    assert first is not None
    assert second is not None
    done = await commit(database, first)
    assert done is not None
    assert done.chunks_completed == 1
    before = await job(database, job_id)
    assert await commit(database, second) is None
    now = await job(database, job_id)
    assert (now.chunks_completed, now.event_seq) == (before.chunks_completed, before.event_seq)
    await invariants.check(database)


async def test_a_chunk_of_another_plan_is_not_committed(database: Database) -> None:
    job_id = await planned_job(database, 1)
    claimed = await claim(database, job_id)
    assert claimed is not None
    stale = claims.ClaimedChunk(claimed.claim, claimed.plan + 1, claimed.spans, None, claimed.job)
    assert await commit(database, stale) is None
    assert (await job(database, job_id)).chunks_completed == 0


async def test_a_late_commit_after_cancel_is_kept_and_releases_nothing(database: Database) -> None:
    job_id = await planned_job(database, 3)
    claimed = await claim(database, job_id)
    assert claimed is not None
    async with database.write() as session:
        assert await failures.cancel_job(session, job_id, "local")
    done = await commit(database, claimed)
    assert done is not None
    assert done.wake_ups == ()
    assert (await chunk(database, job_id, 0)).status == JobStatus.COMPLETED
    assert await claim(database, job_id, 1) is None


async def test_prepare_releases_64_and_each_commit_one_more(database: Database) -> None:
    job_id = await planned_job(database, 70)
    assert (await chunk(database, job_id, 63)).due_at is not None
    assert (await chunk(database, job_id, 64)).due_at is None
    assert indexes((await run_chunk(database, job_id, 0)).wake_ups) == [64]
    assert indexes((await run_chunk(database, job_id, 1)).wake_ups) == [65]
    await invariants.check(database)


async def test_auto_releases_one_until_the_language_is_pinned(database: Database) -> None:
    job_id = await planned_job(database, 80, first_release=1, language="auto")
    assert (await chunk(database, job_id, 1)).due_at is None
    claimed = await claim(database, job_id)
    assert claimed is not None
    done = await commit(database, claimed, pin=True)
    assert done is not None
    assert indexes(done.wake_ups) == list(range(1, 65))
    assert (await job(database, job_id)).detected_language == "en"


async def test_a_plan_without_chunks_goes_to_finalise(database: Database) -> None:
    job_id = await new_job(database)
    async with database.write() as session:
        wake_ups = await plans.store_plan(session, job_id, plan(0))
    assert wake_ups is not None
    assert indexes(wake_ups) == [None]
    await invariants.check(database)
    async with database.write() as session:
        request = ClaimRequest(WORKER, LEASE)
        assert await claims.claim_finalise(session, job_id, 0, request) is not None
    assert await finalise(database, job_id)


async def test_two_concurrent_last_commits_finalise_once(database: Database) -> None:
    for _ in range(20):
        job_id = await planned_job(database, 2)
        claimed = [await claim(database, job_id, index, worker=f"w{index}") for index in range(2)]
        start = asyncio.Barrier(2)

        async def finish(one: claims.ClaimedChunk | None, start: asyncio.Barrier = start) -> bool:
            assert one is not None
            await start.wait()
            done = await commit(database, one)
            return done is not None and done.finalise

        assert sorted(await asyncio.gather(*(finish(one) for one in claimed))) == [False, True]
    await invariants.check(database)


async def test_duplicate_messages_to_four_consumers_commit_each_chunk_once(database: Database) -> None:
    job_id = await planned_job(database, 40)
    messages = [index for index in range(40) for _ in range(10)]
    random.Random(4).shuffle(messages)
    effects: list[commits.Committed] = []

    async def consumer(name: str) -> None:
        while messages:
            index = messages.pop()
            claimed = await claim(database, job_id, index, worker=name)
            if claimed is None and random.random() < 0.3:
                await lapse(database, job_id)
                claimed = await claim(database, job_id, index, worker=name)
            if claimed is not None:
                await asyncio.sleep(0)
                done = await commit(database, claimed)
                if done is not None:
                    effects.append(done)

    await asyncio.gather(*(consumer(f"w{number}") for number in range(4)))
    assert len(effects) == 40
    assert sum(done.finalise for done in effects) == 1
    assert sorted(done.event_seq for done in effects) == list(range(2, 42))
    assert (await job(database, job_id)).chunks_completed == 40
    await invariants.check(database)


async def test_a_job_is_completed_once(database: Database) -> None:
    job_id = await planned_job(database, 1)
    assert not await finalise(database, job_id)
    await run_chunk(database, job_id, 0)
    assert await finalise(database, job_id)
    assert not await finalise(database, job_id)
    row = await job(database, job_id)
    assert (row.status, row.due_at, row.holder) == (JobStatus.COMPLETED, None, None)


async def test_metrics_are_written_with_the_commit(database: Database) -> None:
    job_id = await planned_job(database, 1)
    claimed = await claim(database, job_id)
    assert claimed is not None
    outcome = commits.ChunkOutcome([], 1.0, "en", {"chunk_seconds": 2.5})
    async with database.write() as session:
        assert await commits.commit_chunk(session, claimed, outcome, pin_language=False)

    async with database.read() as session:
        assert await job_statistics.recent_mean(session, "chunk_seconds") == 2.5
        assert await job_statistics.recent_mean(session, "chunk_seconds", "demo-q5_0") == 2.5
        assert await job_statistics.recent_mean(session, "chunk_seconds", "other") is None


async def test_a_failed_attempt_needs_its_own_claim(database: Database) -> None:
    job_id = await planned_job(database, 1)
    first = await claim(database, job_id)
    await lapse(database, job_id)
    second = await claim(database, job_id, worker="worker-2")
    assert first is not None
    assert second is not None
    async with database.write() as session:
        assert await failures.retry_later(session, first.claim, ChunkTimeoutError(), 2.0) is None
    async with database.write() as session:
        assert not await failures.hand_back(session, first.claim)
    async with database.write() as session:
        assert await failures.retry_later(session, second.claim, ChunkTimeoutError(), 2.0) == 1
    row = await chunk(database, job_id, 0)
    assert (row.failures, row.holder, row.error_code) == (1, None, "TIMEOUT")
    assert (await job(database, job_id)).retry_count == 1
    await invariants.check(database)


async def test_a_row_that_lost_several_consumers_is_claimed_alone(database: Database) -> None:
    job_id = await planned_job(database, 1)
    for turn in range(claims.SUSPECT):
        shared_request = ClaimRequest(f"worker-{turn}", LEASE, alone=False)
        async with database.write() as session:
            assert await claims.claim_chunk(session, job_id, 0, 0, shared_request) is not None
        async with database.read() as session:
            assert not await claims.is_suspect(session, job_id, 0)
        await lapse(database, job_id)
    async with database.write() as session:
        assert await claims.claim_chunk(session, job_id, 0, 0, ClaimRequest("worker-9", LEASE, alone=False)) is None
    async with database.read() as session:
        assert await claims.is_suspect(session, job_id, 0)
        assert not await claims.is_suspect(session, job_id, None)
    taken = await claim(database, job_id)
    assert taken is not None
    assert taken.claim.lost == claims.SUSPECT
    async with database.read() as session:
        assert not await claims.is_suspect(session, job_id, 0), (
            "a row that is being run is not claimed by a copy of its message"
        )
    await commit(database, taken)
    async with database.read() as session:
        assert not await claims.is_suspect(session, job_id, 0)


async def _job_with_an_expired_intent(database: Database) -> str:
    """Return a job whose Prepare was claimed so long ago that its working audio may have been collected."""
    job_id = await new_job(database)
    async with database.write() as session:
        await claims.claim_prepare(session, job_id, 0, ClaimRequest(WORKER, LEASE))
    async with database.write() as session:
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
    return job_id


async def test_a_plan_is_not_stored_if_its_audio_was_collected(database: Database) -> None:
    job_id = await _job_with_an_expired_intent(database)
    async with database.write() as session:
        assert await plans.store_plan(session, job_id, plan(2, job_id=job_id)) is None
    await invariants.check(database)


async def test_a_silent_job_completes_although_its_intent_has_expired(database: Database) -> None:
    """Its plan needs no audio, so it is stored."""
    job_id = await _job_with_an_expired_intent(database)
    async with database.write() as session:
        assert await plans.store_plan(session, job_id, plan(0, job_id=job_id)) is not None
    assert await finalise(database, job_id)
    assert (await job(database, job_id)).status == JobStatus.COMPLETED
