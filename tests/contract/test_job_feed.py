"""Events of a job for many readers: complete for each, and read and merged once per commit for all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from core.database import Database
from internal.services import job_feed, job_watcher
from internal.services.job_events import JobEvent, JobEvents
from internal.services.job_feed import JobFeed, chunk_numbers
from internal.services.job_watcher import JobWatcher
from repositories import plans
from tests.contract.rows import finalise, planned_job, run_chunk

CHUNKS, READERS = 12, 20


@pytest.fixture
def events(database: Database) -> JobEvents:
    return JobEvents(database, JobWatcher(database))


@contextlib.contextmanager
def statements_with(database: Database, part: str) -> Iterator[list[str]]:
    """Collect the statements that contain `part`."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if part in statement:
            found.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield found
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def read(events: JobEvents, job_id: str, after: int = 0) -> list[JobEvent]:
    async with asyncio.timeout(60):
        return [event async for event in events.follow(job_id, after)]


async def transcribe(database: Database, job_id: str, order: list[int]) -> None:
    for index in order:
        await run_chunk(database, job_id, index)
    assert await finalise(database, job_id)


def chunks_of(received: list[JobEvent]) -> list[int]:
    return [event.segment.chunk for event in received if event.segment is not None]


async def test_each_reader_receives_every_segment_once_in_order(database: Database, events: JobEvents) -> None:
    job_id = await planned_job(database, CHUNKS)
    order = [index ^ 1 for index in range(CHUNKS)]
    readers = [asyncio.create_task(read(events, job_id)) for _ in range(READERS)]
    await transcribe(database, job_id, order)
    for received in await asyncio.gather(*readers):
        assert chunks_of(received) == list(range(CHUNKS))
        assert [event.segment.id for event in received if event.segment] == list(range(CHUNKS))
        numbers = [event.number for event in received if event.number is not None]
        assert numbers == sorted(numbers)
        assert received[-1].kind == "completed"
    assert not events._feeds, "the feed is dropped with its last reader"


async def test_readers_share_the_reads_of_each_commit(database: Database, events: JobEvents) -> None:
    job_id = await planned_job(database, CHUNKS)
    with statements_with(database, "chunks.transcription") as loaded:
        readers = [asyncio.create_task(read(events, job_id)) for _ in range(READERS)]
        await transcribe(database, job_id, list(range(CHUNKS)))
        await asyncio.gather(*readers)
    assert 0 < len(loaded) <= CHUNKS


async def test_a_reader_resumes_after_each_number(database: Database, events: JobEvents) -> None:
    job_id = await planned_job(database, CHUNKS)
    await transcribe(database, job_id, [index ^ 1 for index in range(CHUNKS)])
    everything = await read(events, job_id)
    for position, last in enumerate(everything):
        if last.number is not None and last.segment is not None:
            resumed = await read(events, job_id, last.number)
            assert chunks_of(resumed) == chunks_of(everything[position + 1 :])


async def test_a_reader_that_leaves_does_not_interrupt_the_others(database: Database, events: JobEvents) -> None:
    job_id = await planned_job(database, CHUNKS)
    staying = asyncio.create_task(read(events, job_id))
    for index in range(CHUNKS):
        leaving = asyncio.create_task(read(events, job_id))
        await run_chunk(database, job_id, index)
        await asyncio.sleep(0)
        leaving.cancel()
    assert await finalise(database, job_id)
    assert chunks_of(await staying) == list(range(CHUNKS))


async def test_an_update_that_fails_is_repeated(
    database: Database, events: JobEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await planned_job(database, 2)
    await run_chunk(database, job_id, 0)
    feed = JobFeed(database, job_id)
    merge = job_feed._merge

    def fail(*arguments: Any) -> Any:
        merge(*arguments)
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(job_feed, "_merge", fail)
        with pytest.raises(RuntimeError):
            await feed.update(1)
    await run_chunk(database, job_id, 1)
    await feed.update(3)
    assert chunks_of(feed.events_after(0)) == [0, 1]


async def test_the_first_event_does_not_wait_for_the_next_poll(
    database: Database, events: JobEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_watcher, "POLL_INTERVAL", 3600.0)
    async with asyncio.timeout(60), contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            followed = events.follow(await planned_job(database, 1), 0)
            stack.push_async_callback(followed.aclose)
            assert (await anext(followed)).kind == "progress"


async def test_a_new_plan_starts_over(database: Database) -> None:
    job_id = await planned_job(database, 3)
    await run_chunk(database, job_id, 0)
    feed = JobFeed(database, job_id)
    await feed.update(1)
    assert chunks_of(feed.events_after(0)) == [0]
    async with database.write() as session:
        await plans.drop(session, job_id)
    await feed.update(feed.seq + 1)
    assert feed.events_after(0) == []


async def test_a_deleted_job_is_cancelled_for_its_readers(database: Database, events: JobEvents) -> None:
    assert [event.kind for event in await read(events, "00000000-0000-4000-8000-000000000000")] == ["cancelled"]


def test_a_chunk_waits_for_the_overlapping_one_after_it() -> None:
    marks = {0: (0, 5, 0.0, True), 1: (1, 3, 2.0, True), 2: (2, 0, 2.0, False)}
    assert chunk_numbers(marks) == {0: 5}
    marks[2] = (2, 7, 2.0, True)
    assert chunk_numbers(marks, 1, 5) == {1: 7, 2: 7}
