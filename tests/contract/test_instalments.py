"""Plans that are released in instalments while the recording is decoded, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select, update

from core.database import Database, after
from core.domain import keys
from core.domain.job import JobStatus
from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span
from core.errors import CorruptedFileError, NetworkError
from internal.services.job_views import progress_of
from repositories import admission, claims, deletion, failures, intents, plans, starvation
from repositories.claims import Claim, ClaimRequest, WakeUp
from repositories.models import Chunk, Job, UploadIntent
from repositories.plans import Plan
from tests.contract import invariants
from tests.contract.rows import (
    LEASE,
    WORKER,
    chunk,
    claim,
    commit,
    finalise,
    indexes,
    job,
    lapse,
    new_job,
    plan,
    run_chunk,
)

EXPECTED = 10


async def claim_prepare(database: Database, job_id: str, worker: str = WORKER) -> Claim | None:
    failed = (await job(database, job_id)).failures
    async with database.write() as session:
        claimed = await claims.claim_prepare(session, job_id, failed, ClaimRequest(worker, LEASE))
    return None if claimed is None else claimed[0]


async def part(database: Database, claimed: Claim, number: int, chunks: int) -> Plan:
    """Return the part that this run plans after the chunks in the database, with an object of its own."""
    async with database.read() as session:
        count, end = await plans.find_released(session, claimed.job_id)
    shifted = (Span(end + index * SAMPLE_RATE, end + (index + 1) * SAMPLE_RATE) for index in range(chunks))
    return replace(
        plan(chunks, (await job(database, claimed.job_id)).plan or claimed.number),
        key=keys.working_key(claimed.job_id, claimed.number, number),
        chunks=tuple(PlannedChunk((span,)) for span in shifted),
        claim=claimed if number or count else None,
        first_index=count,
        audio_start=end,
    )


async def release(database: Database, claimed: Claim, chunks: int = 2, number: int = 0) -> list[WakeUp] | None:
    instalment = await part(database, claimed, number, chunks)
    following = keys.working_key(claimed.job_id, claimed.number, number + 1)
    async with database.write() as session:
        return await plans.store_instalment(session, claimed, instalment, expected=EXPECTED, next_key=following)


async def close(database: Database, claimed: Claim, chunks: int = 2, number: int = 1) -> list[WakeUp] | None:
    rest = await part(database, claimed, number, chunks)
    async with database.write() as session:
        return await plans.store_plan(session, claimed.job_id, rest)


async def open_job(database: Database, chunks: int = 2, **changes: str) -> Claim:
    """Return the claim of a Prepare that has released one instalment."""
    claimed = await claim_prepare(database, await new_job(database, **changes))
    assert claimed is not None
    assert await release(database, claimed, chunks) is not None
    return claimed


async def intent_keys(database: Database) -> set[str]:
    async with database.read() as session:
        return set((await session.execute(select(UploadIntent.key))).scalars())


async def test_chunks_run_while_the_plan_is_open_and_none_is_the_last(database: Database) -> None:
    claimed = await open_job(database)
    job_id = claimed.job_id
    row = await job(database, job_id)
    assert (row.status, row.holder, row.chunks_total, row.plan) == (JobStatus.PROCESSING, claimed.holder, None, 1)
    for index in range(2):
        done = await run_chunk(database, job_id, index)
        assert (done.finalise, done.chunks_total) == (False, None)
        await invariants.check(database)
    async with database.write() as session:
        assert await claims.claim_finalise(session, job_id, 0, ClaimRequest("worker-2", LEASE)) is None
    assert not await finalise(database, job_id)
    assert indexes(await close(database, claimed) or []) == [2, 3]
    await run_chunk(database, job_id, 2)
    assert (await run_chunk(database, job_id, 3)).finalise
    assert await finalise(database, job_id)
    await invariants.check(database)


async def test_a_rest_without_speech_closes_the_plan(database: Database) -> None:
    claimed = await open_job(database, 1)
    await run_chunk(database, claimed.job_id, 0)
    assert indexes(await close(database, claimed, 0) or []) == [None], "all chunks are finished: Finalise is due"
    assert await finalise(database, claimed.job_id)
    await invariants.check(database)


async def test_a_rest_without_speech_waits_for_the_last_chunk(database: Database) -> None:
    claimed = await open_job(database, 1)
    running = await claim(database, claimed.job_id)
    assert running is not None
    assert await close(database, claimed, 0) == []
    done = await commit(database, running)
    assert done is not None
    assert done.finalise


async def test_each_chunk_names_the_object_with_its_samples(database: Database) -> None:
    claimed = await open_job(database)
    await close(database, claimed)
    found = [await claim(database, claimed.job_id, index) for index in range(4)]
    first, rest = (keys.working_key(claimed.job_id, 1, number) for number in (0, 1))
    assert [one and (one.audio_path, one.audio_start) for one in found] == [(first, 0)] * 2 + [(rest, 32_000)] * 2


async def test_every_object_is_collected_after_the_job(database: Database) -> None:
    claimed = await open_job(database)
    objects = {keys.working_key(claimed.job_id, 1, number) for number in (0, 1)}
    assert await intent_keys(database) == {keys.working_key(claimed.job_id, 1, 1)}, "only the next object's"
    await close(database, claimed)
    assert await intent_keys(database) == set()
    for index in range(4):
        await run_chunk(database, claimed.job_id, index)
    await finalise(database, claimed.job_id)
    assert await intent_keys(database) == objects


async def test_the_next_prepare_continues_after_the_last_chunk(database: Database) -> None:
    """The first run is lost and comes back late: it can neither extend nor close the plan."""
    first = await open_job(database)
    job_id = first.job_id
    running = await claim(database, job_id, 1)
    assert running is not None
    await run_chunk(database, job_id, 0)
    async with database.write() as session:
        assert await failures.hand_back(session, first)
    second = await claim_prepare(database, job_id, "worker-2")
    assert second is not None
    assert await release(database, first, number=1) is None
    assert await close(database, first) is None
    assert indexes(await release(database, second) or []) == [2, 3]
    assert indexes(await close(database, second) or []) == [4, 5]
    assert await commit(database, running) is not None, "a chunk of the first run's instalment belongs to the plan"
    async with database.read() as session:
        spans = (await session.execute(select(Chunk.spans).order_by(Chunk.chunk_index))).scalars().all()
    assert [pair for [pair] in spans] == [[index * SAMPLE_RATE, (index + 1) * SAMPLE_RATE] for index in range(6)]
    assert (await job(database, job_id)).chunks_total == 6
    await invariants.check(database)


async def test_a_lapsed_prepare_is_claimed_again_although_the_job_is_processing(database: Database) -> None:
    first = await open_job(database)
    assert await lapse(database, first.job_id) == 1
    second = await claim_prepare(database, first.job_id, "worker-2")
    assert second is not None
    assert (second.number, second.lost) == (2, 1), "an instalment does not forget the lost run"
    await invariants.check(database)


async def test_an_instalment_is_stored_once(database: Database) -> None:
    """A repeated transaction, after a lost response, changes nothing."""
    claimed = await claim_prepare(database, await new_job(database))
    assert claimed is not None
    instalment = await part(database, claimed, 0, 2)
    stored = []
    for _ in range(2):
        async with database.write() as session:
            stored.append(
                await plans.store_instalment(session, claimed, instalment, expected=EXPECTED, next_key="work/x/1-1.pcm")
            )
    assert [one is None for one in stored] == [False, True]
    assert (await job(database, claimed.job_id)).working_audio_path == instalment.key
    await invariants.check(database)


async def test_an_object_of_an_earlier_instalment_is_still_used(database: Database) -> None:
    """Its run may learn only after the next instalment, from another run, that its COMMIT took effect."""
    first = await open_job(database)
    await lapse(database, first.job_id)
    second = await claim_prepare(database, first.job_id, "worker-2")
    assert second is not None
    await release(database, second)
    used = [keys.working_key(first.job_id, number) for number in (1, 2, 3)]
    async with database.read() as session:
        assert [await plans.uses_audio(session, first.job_id, key) for key in used] == [True, True, False]
    async with database.write() as session:
        await deletion.mark_deleted(session, first.job_id, "local")
    async with database.read() as session:
        assert not await plans.uses_audio(session, first.job_id, used[0])


@pytest.mark.parametrize("number", [0, 1])
async def test_an_instalment_is_not_stored_if_its_audio_was_collected(database: Database, number: int) -> None:
    claimed = await claim_prepare(database, await new_job(database))
    assert claimed is not None
    for earlier in range(number):
        assert await release(database, claimed, number=earlier) is not None
    before = await job(database, claimed.job_id)
    async with database.write() as session:
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
    assert await release(database, claimed, number=number) is None
    assert (await job(database, claimed.job_id)).event_seq == before.event_seq
    await invariants.check(database)


async def test_a_plan_without_instalments_does_not_replace_an_open_one(database: Database) -> None:
    claimed = await open_job(database)
    async with database.write() as session:
        assert await plans.store_plan(session, claimed.job_id, plan(3, number=2)) is None
    assert (await job(database, claimed.job_id)).chunks_total is None


@pytest.mark.parametrize("end", ["cancelled", "failed", "deleted"])
async def test_an_ended_job_stops_its_instalments(database: Database, end: str) -> None:
    claimed = await open_job(database)
    job_id = claimed.job_id
    running = await claim(database, job_id)
    assert running is not None
    async with database.write() as session:
        if end == "cancelled":
            assert await failures.cancel_job(session, job_id, "local")
        elif end == "failed":
            assert await failures.fail_job(session, job_id, CorruptedFileError(), "token", claim=claimed)
        else:
            assert await deletion.mark_deleted(session, job_id, "local")
    await invariants.check(database)
    assert await release(database, claimed, number=1) is None
    assert await close(database, claimed) is None
    assert await claim(database, job_id, 1) is None
    assert await commit(database, running) is not None, "a running chunk may still commit"
    await invariants.check(database)


@pytest.mark.parametrize("failed", [True, False])
async def test_a_retry_of_a_job_with_an_open_plan_prepares_it_anew(database: Database, failed: bool) -> None:
    claimed = await open_job(database)
    job_id = claimed.job_id
    await run_chunk(database, job_id, 0)
    async with database.write() as session:
        if failed:
            assert await failures.fail_job(session, job_id, CorruptedFileError(), "token", claim=claimed)
        else:
            assert await failures.cancel_job(session, job_id, "local")
    async with database.write() as session:
        assert indexes(await failures.retry_job(session, job_id, "local") or []) == [None]
    row = await job(database, job_id)
    assert (row.status, row.plan, row.chunks_completed, row.chunks_expected) == (JobStatus.PENDING, None, 0, None)
    async with database.read() as session:
        assert not (await session.execute(select(func.count()).select_from(Chunk))).scalar_one()
    assert keys.working_key(job_id, 1) in await intent_keys(database)
    second = await claim_prepare(database, job_id)
    assert second is not None
    assert await release(database, second, 3) is not None
    await invariants.check(database)


async def test_a_failed_attempt_after_an_instalment_is_counted(database: Database) -> None:
    claimed = await open_job(database)
    async with database.write() as session:
        assert await failures.retry_later(session, claimed, NetworkError(), 1.0) == 1
    again = await claim_prepare(database, claimed.job_id)
    assert again is not None
    assert again.failures == 1
    assert await release(database, again) is not None
    assert (await job(database, claimed.job_id)).failures == 1
    await close(database, again)
    assert (await job(database, claimed.job_id)).failures == 0


async def test_at_most_64_chunks_wait_or_run_however_many_instalments(database: Database) -> None:
    claimed = await open_job(database, 60)
    assert indexes(await release(database, claimed, 60, 1) or []) == list(range(60, 64))
    assert indexes((await run_chunk(database, claimed.job_id, 0)).wake_ups) == [64]
    await run_chunk(database, claimed.job_id, 1)
    assert await close(database, claimed, 3, 2) == []
    await invariants.check(database)


async def test_auto_waits_for_the_language_across_instalments(database: Database) -> None:
    claimed = await open_job(database, 3, language="auto")
    job_id = claimed.job_id
    assert (await chunk(database, job_id, 1)).due_at is None
    assert await release(database, claimed, 3, 1) == [], "the first chunk determines the language"
    first = await claim(database, job_id)
    assert first is not None
    done = await commit(database, first, pin=True)
    assert done is not None
    assert indexes(done.wake_ups) == [1, 2, 3, 4, 5]
    assert indexes(await close(database, claimed, 2, 2) or []) == [6, 7]
    await invariants.check(database)


async def test_progress_never_falls(database: Database) -> None:
    claimed = await open_job(database, 4)
    seen = []
    for index in range(3):
        await run_chunk(database, claimed.job_id, index)
        seen.append(progress_of(await job(database, claimed.job_id)))
    assert seen == [10.0, 20.0, 30.0]
    await close(database, claimed, 4)
    seen.append(progress_of(await job(database, claimed.job_id)))
    assert seen == sorted(seen)


async def test_an_open_plan_is_continued_although_its_owner_is_at_the_limit(database: Database) -> None:
    claimed = await open_job(database)
    waiting = await new_job(database)
    await lapse(database, claimed.job_id)
    async with database.write() as session:
        request = ClaimRequest("worker-2", LEASE)
        assert await admission.claim_prepare(session, claimed.job_id, 0, request, 1) is not None
        assert await admission.claim_prepare(session, waiting, 0, request, 1) is None


async def test_a_starving_chunk_of_an_open_plan_is_boosted(database: Database) -> None:
    claimed = await open_job(database)
    async with database.write() as session:
        await session.execute(
            update(Job).values(progressed_at=after(-100), claimed_at=after(-100), updated_at=after(-100))
        )
        assert indexes(await starvation.boost_starving(session, 50)) == [0]
    assert (await job(database, claimed.job_id)).boosted_at is not None


async def test_the_collector_spares_stored_instalments(database: Database) -> None:
    claimed = await open_job(database)
    async with database.write() as session:
        await session.execute(update(UploadIntent).values(expires_at=after(-1)))
        expired = [intent.key for intent in await intents.list_expired(session)]
    assert expired == [keys.working_key(claimed.job_id, 1, 1)], "the object of the next one, which is not stored"
