"""Prepare of a long recording: its first chunks are transcribed while the rest is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from sqlalchemy import select, update

from core.database import after
from core.domain.job import JobStatus, Priority
from core.storage.local import LocalStorage
from internal import bootstrap
from internal.bootstrap import Application
from internal.services.job_views import progress_of
from internal.services.submit_options import SubmitOptions
from repositories.models import Chunk, Job
from tests.contract import invariants
from tests.integration.test_consumer import (
    bad_audio,
    get_job,
    open_application,
    running_consumer,
    settings_for,
    submit_audio,
    wait_for_end,
)
from tests.speech import encode
from tests.unit.test_chunking import SECOND, speech_like
from worker import preparer

LENGTH = 600
"""Seconds of the recording. Instalments are released from about 66, 131 and 262 s on."""


@pytest.fixture(autouse=True)
def _early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparer, "FIRST_INSTALMENT", 60 * SECOND)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    async with open_application(settings_for(tmp_path)) as app:
        yield app


class Gate:
    """Holds back the working audio of instalments whose keys end with `suffix`."""

    def __init__(self, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()
        put_file = LocalStorage.put_file

        async def put(storage: LocalStorage, key: str, path: Path, content_type: str = "x/y") -> None:
            if key.endswith(suffix):
                self.reached.set()
                await self.open.wait()
            await put_file(storage, key, path, content_type)

        monkeypatch.setattr(LocalStorage, "put_file", put)


async def chunks_of(app: Application, job_id: str) -> list[Chunk]:
    async with app.database.read() as session:
        rows = select(Chunk).where(Chunk.job_id == job_id).order_by(Chunk.chunk_index)
        return list((await session.execute(rows)).scalars())


async def wait_for_finished(app: Application, job_id: str, count: int) -> Job:
    async with asyncio.timeout(20):
        while (job := await get_job(app, job_id)).chunks_completed < count:
            await asyncio.sleep(0.02)
    return job


async def submit_truncated(app: Application, folder: Path) -> str:
    """Create a job with a FLAC file that ends after six of the ten minutes that its header states."""
    path = encode(speech_like(LENGTH), folder / "truncated.flac")
    intake = app.services.submissions.new_upload()
    await intake.begin(path.name)
    await intake.write(path.read_bytes()[: path.stat().st_size * 6 // 10])
    await intake.finish()
    options = SubmitOptions("en", "demo-q5_0", Priority.NORMAL)
    return (await app.services.submissions.create_from_upload(intake, "local", options)).job_id


async def wait_until_removed(app: Application, job_id: str, pattern: str = "*") -> None:
    """Wait until no working audio is left: Finalise deletes it after its COMMIT."""
    assert isinstance(app.storage, LocalStorage)
    async with asyncio.timeout(20):
        while list((app.storage.root / "work" / job_id).glob(pattern)):
            await asyncio.sleep(0.02)


async def test_the_first_segments_are_sent_while_prepare_still_runs(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate("-1.pcm", monkeypatch)
    async with running_consumer(app):
        job_id = await submit_audio(app, speech_like(LENGTH), tmp_path)
        async with aclosing(app.services.job_events.follow(job_id, 0)) as events:
            async for event in events:
                if event.kind == "segment":
                    break
            job = await get_job(app, job_id)
            assert (job.status, job.chunks_total, bool(job.holder)) == (JobStatus.PROCESSING, None, True)
            first = await wait_for_finished(app, job_id, len(await chunks_of(app, job_id)))
            assert 0 < progress_of(first) < 20
            assert first.audio_duration_seconds == LENGTH, "the length that the file states"
            gate.open.set()
            shares = [progress_of(event.job) async for event in events if event.job]
        job = await wait_for_end(app, job_id)
        await wait_until_removed(app, job_id)
    assert (job.status, job.audio_duration_seconds) == (JobStatus.COMPLETED, LENGTH)
    assert shares == sorted(shares), "progress never falls"
    assert shares[-1] == 100
    chunks = await chunks_of(app, job_id)
    assert len({chunk.audio_path for chunk in chunks}) == 4
    assert {chunk.attempts for chunk in chunks} == {1}


async def test_a_plan_in_instalments_is_that_of_one_piece(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_consumer(app):
        spans = []
        for first in (60, 10_000):
            monkeypatch.setattr(preparer, "FIRST_INSTALMENT", first * SECOND)
            job_id = await submit_audio(app, speech_like(LENGTH), tmp_path)
            assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED
            spans.append([chunk.spans for chunk in await chunks_of(app, job_id)])
    assert spans[0] == spans[1]


async def test_a_recording_just_longer_than_an_instalment_has_none(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app):
        job_id = await submit_audio(app, speech_like(80), tmp_path)
        job = await wait_for_end(app, job_id)
    assert (job.status, job.chunks_expected) == (JobStatus.COMPLETED, None)
    assert {chunk.audio_path for chunk in await chunks_of(app, job_id)} == {None}


async def test_another_consumer_continues_after_the_last_instalment(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate("-2.pcm", monkeypatch)
    async with running_consumer(app):
        job_id = await submit_audio(app, speech_like(LENGTH), tmp_path)
        await gate.reached.wait()
        before = await chunks_of(app, job_id)
        await wait_for_finished(app, job_id, len(before))
    await invariants.check(app.database)
    gate.open.set()
    async with app.database.write() as session:
        assert (await session.execute(select(Job.holder))).scalar_one() is None
        await session.execute(update(Job).values(due_at=after(-1)))
    async with running_consumer(app):
        await bootstrap.maintenance(app).publish_due()
        job = await wait_for_end(app, job_id)
        await wait_until_removed(app, job_id)
    chunks = await chunks_of(app, job_id)
    assert (job.status, job.chunks_total) == (JobStatus.COMPLETED, len(chunks))
    assert [chunk.spans for chunk in chunks[: len(before)]] == [chunk.spans for chunk in before]
    assert {chunk.attempts for chunk in chunks} == {1}
    assert chunks[-1].end_time > LENGTH - 10


async def test_a_recording_damaged_in_its_middle_fails_and_leaves_nothing_behind(
    app: Application, tmp_path: Path
) -> None:
    async with running_consumer(app):
        job_id = await submit_truncated(app, tmp_path)
        job = await wait_for_end(app, job_id)
        assert (job.status, job.error_code, job.chunks_total) == (JobStatus.FAILED, "CORRUPTED_FILE", None)
        assert job.chunks_expected is not None
        async with asyncio.timeout(10):
            while any(chunk.holder for chunk in await chunks_of(app, job_id)):
                await asyncio.sleep(0.02)
        await invariants.check(app.database)
        await app.services.jobs.retry(job_id, "local")
        again = await wait_for_end(app, job_id)
        assert (again.status, again.error_code) == (JobStatus.FAILED, "CORRUPTED_FILE")
        assert again.plan != job.plan
        await app.services.jobs.delete(job_id, "local")
        await wait_until_removed(app, job_id)


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_a_job_that_ends_between_instalments_releases_no_more(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    gate = Gate("-1.pcm", monkeypatch)
    async with running_consumer(app) as consumer:
        job_id = await submit_audio(app, speech_like(LENGTH), tmp_path)
        await gate.reached.wait()
        count = len(await chunks_of(app, job_id))
        await getattr(app.services.jobs, end)(job_id, "local")
        gate.open.set()
        good = await submit_audio(app, bad_audio(0), tmp_path)
        assert (await wait_for_end(app, good)).status == JobStatus.COMPLETED
        await consumer.stop(grace=20)
    assert len(await chunks_of(app, job_id)) == count
    await wait_until_removed(app, job_id, "1-1.pcm")
    await invariants.check(app.database)
