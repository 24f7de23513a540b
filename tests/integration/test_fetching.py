"""Recordings by URL: slow servers delay no other job, and servers below the minimum rate are given up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.database import after
from core.domain.job import TOP_LEVEL, JobStatus, Priority
from core.messaging.memory import MemoryBroker
from core.messaging.port import MessageType, QueueName, decode
from core.outbound import Limits, Outbound, Unreachable
from internal import bootstrap
from internal.bootstrap import Application
from internal.services import publishing
from internal.services.submit_options import SubmitOptions
from repositories.claims import WakeUp
from repositories.models import Job
from tests.integration.bad_engines import FINE
from tests.integration.test_consumer import (
    bad_audio,
    get_job,
    open_application,
    running_consumer,
    settings_for,
    submit_audio,
    wait_for_end,
)
from tests.speech import write_wav

OPTIONS = SubmitOptions("en", "demo-q5_0", Priority.NORMAL)


@contextlib.asynccontextmanager
async def media_server(body: bytes) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """Until the event is set, `/slow…` trickles and `/gone…` answers 404; all other paths send the body."""
    go_on = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/gone" in request and not go_on.is_set():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        slow = b"/slow" in request
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        sent = 0
        with contextlib.suppress(OSError):
            while slow and not go_on.is_set() and sent < len(body):
                writer.write(body[sent : sent + 1])
                sent += 1
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(go_on.wait(), 0.05)
            writer.write(body[sent:])
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", go_on
        go_on.set()


async def submit_url(app: Application, owner: str, url: str, number: int = 0) -> str:
    return (await app.services.url_submissions.submit(owner, f"{owner}-{number}", url, OPTIONS, None))[0].job_id


async def fetching_count(app: Application, owner: str) -> int:
    async with app.database.read() as session:
        statement = select(func.count()).where(Job.owner == owner, Job.holder.is_not(None))
        return (await session.execute(statement)).scalar_one()


async def test_ten_trickling_urls_of_one_owner_delay_no_other_job(tmp_path: Path) -> None:
    """An upload and another owner's URL finish meanwhile; later the ten do, each woken by the previous one."""
    body = write_wav(tmp_path / "a.wav", bad_audio(FINE)).read_bytes()
    async with media_server(body) as (host, go_on):
        settings = settings_for(tmp_path, media_url_allowed_hosts=host, fetch_per_owner=2, fetch_concurrency=4)
        async with open_application(settings) as app, running_consumer(app):
            slow = [await submit_url(app, "anna", f"http://{host}/slow{n}.wav", n) for n in range(10)]
            async with asyncio.timeout(20):
                while not await fetching_count(app, "anna"):
                    await asyncio.sleep(0.02)
            upload = await submit_audio(app, bad_audio(FINE), tmp_path)
            other = await submit_url(app, "ben", f"http://{host}/fast.wav")
            assert (await wait_for_end(app, upload)).status == JobStatus.COMPLETED
            assert (await wait_for_end(app, other)).status == JobStatus.COMPLETED
            assert await fetching_count(app, "anna") == 2
            go_on.set()
            for job_id in slow:
                assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED


@contextlib.asynccontextmanager
async def unpublished_fetch(tmp_path: Path) -> AsyncIterator[tuple[Application, str]]:
    """Yield an application and the id of a job by URL whose fetch was not published."""
    body = write_wav(tmp_path / "a.wav", bad_audio(FINE)).read_bytes()
    async with (
        media_server(body) as (host, _),
        open_application(settings_for(tmp_path, media_url_allowed_hosts=host)) as app,
    ):
        await app.broker.stop()
        job_id = await submit_url(app, "anna", f"http://{host}/fast.wav")
        await app.broker.start()
        yield app, job_id


async def test_a_prepare_of_an_earlier_version_leads_to_its_fetch(tmp_path: Path) -> None:
    async with unpublished_fetch(tmp_path) as (app, job_id):
        message = publishing.prepare_message(await get_job(app, job_id), WakeUp(job_id, None, 0))
        assert message.type is MessageType.PREPARE
        async with running_consumer(app):
            await app.broker.publish(message)
            assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED


async def test_a_starving_fetch_is_boosted_in_its_own_queue(tmp_path: Path) -> None:
    async with unpublished_fetch(tmp_path) as (app, job_id):
        async with app.database.write() as session:
            await session.execute(update(Job).values(progressed_at=after(-10_000)))
        await bootstrap.maintenance(app).boost_starving()
        assert isinstance(app.broker, MemoryBroker)
        [(boosted, _)] = app.broker.waiting(QueueName.FETCH)
        message = decode(boosted)
        assert (message.type, message.job_id, message.level) == (MessageType.FETCH, job_id, TOP_LEVEL)
        async with running_consumer(app):
            assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED


async def test_a_replayed_dead_letter_of_a_fetch_fetches_again(tmp_path: Path) -> None:
    body = write_wav(tmp_path / "a.wav", bad_audio(FINE)).read_bytes()
    async with (
        media_server(body) as (host, go_on),
        open_application(settings_for(tmp_path, media_url_allowed_hosts=host)) as app,
        running_consumer(app),
    ):
        job_id = await submit_url(app, "anna", f"http://{host}/gone.wav")
        failed = await wait_for_end(app, job_id)
        assert (failed.status, failed.minio_audio_path) == (JobStatus.FAILED, None)
        go_on.set()
        assert isinstance(app.broker, MemoryBroker)
        async with asyncio.timeout(20):
            while not (letters := app.broker.waiting(QueueName.DEAD)):
                await asyncio.sleep(0.02)
        await app.broker.publish_raw(QueueName.FETCH, letters[0][0])
        async with asyncio.timeout(20):
            while (await get_job(app, job_id)).status == JobStatus.FAILED:
                await asyncio.sleep(0.02)
        assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED


async def test_a_fetch_below_the_minimum_rate_is_given_up() -> None:
    async with media_server(bytes(100_000)) as (host, _):
        outbound = Outbound([host])
        limits = Limits(total=60, min_rate=1024, rate_window=0.5)
        with pytest.raises(Unreachable, match="too slowly"):
            async with outbound.get(f"http://{host}/slow.wav", limits) as response:
                async for _ in response.body():
                    pass
        async with outbound.get(f"http://{host}/fast.wav", limits) as response:
            assert sum([len(piece) async for piece in response.body()]) == 100_000
        await outbound.stop()


async def test_jobs_beyond_the_limit_of_prepared_audio_follow_as_others_end(tmp_path: Path) -> None:
    async with open_application(settings_for(tmp_path, max_prepared_seconds=0.5)) as app, running_consumer(app):
        ids = [await submit_audio(app, bad_audio(FINE), tmp_path) for _ in range(6)]
        for job_id in ids:
            assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED
