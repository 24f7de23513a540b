"""A consumer on a faulty machine: no job fails, and the consumer repairs the fault or reports it and stops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.domain.job import JobStatus
from core.errors import EngineUnavailableError, InvalidAudioFormatError
from core.messaging.memory import MemoryBroker, _Subscription
from internal import bootstrap
from internal.bootstrap import Application
from internal.consumer import machine_health
from internal.consumer.handlers.prepare import PrepareHandler
from internal.services.health import HealthReport
from tests.engine_processes import process_ids
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
from worker.engine_process import EngineProcess

SECONDS = 60.0


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("FIRST_PROBE_DELAY", 0.05),
        ("MAX_PROBE_DELAY", 0.2),
        ("FIRST_HAND_BACK_DELAY", 0.1),
        ("MAX_HAND_BACK_DELAY", 0.5),
    ):
        monkeypatch.setattr(machine_health, name, value)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    async with open_application(settings_for(tmp_path)) as app:
        yield app


@contextlib.asynccontextmanager
async def scheduling(app: Application) -> AsyncIterator[None]:
    """Publish due rows as the scheduler does."""

    async def maintenance() -> None:
        while True:
            await bootstrap.maintenance(app).publish_due()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(maintenance())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.02)


async def test_killed_idle_engine_processes_are_not_counted(app: Application, tmp_path: Path) -> None:
    """The kernel kills idle processes first when memory runs out."""
    async with running_consumer(app) as consumer:
        before = await process_ids(consumer.pool)
        for _ in range(2):
            for child in await process_ids(consumer.pool):
                os.kill(child, signal.SIGKILL)
            for _ in range(2):
                job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE), tmp_path))
                assert (job.status, job.retry_count) == (JobStatus.COMPLETED, 0)
        assert consumer.health.reason is None
        assert not set(before) & set(await process_ids(consumer.pool))


async def test_a_removed_temporary_folder_is_created_again(app: Application, tmp_path: Path) -> None:
    async with running_consumer(app) as consumer:
        for folder in (consumer.workspace.path, consumer.workspace.root, tmp_path / "tmp"):
            shutil.rmtree(folder)
            job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE), tmp_path))
            assert (job.status, job.retry_count) == (JobStatus.COMPLETED, 0)
            assert consumer.workspace.path.is_dir()


def break_temp_dir(folder: Path) -> None:
    """Replace the folder with a file, so that not even root can create anything in it."""
    shutil.rmtree(folder)
    folder.write_text("in the way")


async def test_a_sick_consumer_stops_reports_it_and_resumes(app: Application, tmp_path: Path) -> None:
    temp = tmp_path / "tmp"
    async with running_consumer(app) as consumer, scheduling(app):
        assert (await app.services.health_check.run()).healthy
        break_temp_dir(temp)
        accepted = [await submit_audio(app, bad_audio(FINE), tmp_path) for _ in range(4)]
        await eventually(lambda: consumer.health.reason is not None)
        state = await sick_state(app)
        assert (state.healthy, state.workers_active) == (False, 0)
        assert state.workers_sick[consumer.worker_id].startswith("MACHINE_FAULT")
        assert str(temp) not in str(state.workers_sick)
        assert not any(row.consumers for row in await app.broker.stats())
        for job_id in accepted:
            job = await get_job(app, job_id)
            assert (job.status, job.failures, job.lost, job.error_code) == (JobStatus.PENDING, 0, 0, None)
        temp.unlink()
        for job_id in accepted:
            assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED
        assert consumer.health.reason is None
    assert (await app.services.health_check.run()).healthy


async def sick_state(app: Application) -> HealthReport:
    async with asyncio.timeout(SECONDS):
        while not (state := await app.services.health_check.run()).workers_sick:
            await asyncio.sleep(0.02)
    return state


async def test_a_healthy_consumer_finishes_the_jobs_of_a_sick_one(app: Application, tmp_path: Path) -> None:
    other = replace(app, settings=settings_for(tmp_path, temp_dir=tmp_path / "broken"))
    async with running_consumer(other) as sick, scheduling(app):
        break_temp_dir(tmp_path / "broken")
        first = [await submit_audio(app, bad_audio(FINE), tmp_path) for _ in range(4)]
        await eventually(lambda: sick.health.reason is not None)
        async with running_consumer(app):
            for job_id in [*first, *[await submit_audio(app, bad_audio(FINE), tmp_path) for _ in range(4)]]:
                job = await wait_for_end(app, job_id)
                assert (job.status, job.failures, job.lost) == (JobStatus.COMPLETED, 0, 0)
            state = await app.services.health_check.run()
            assert (state.healthy, state.workers_active, len(state.workers_sick)) == (True, 1, 1)


async def test_a_consumer_waits_for_a_machine_that_is_sick_at_its_start(app: Application, tmp_path: Path) -> None:
    (tmp_path / "tmp").write_text("in the way")
    async with running_consumer(app) as consumer, scheduling(app):
        assert consumer.health.reason is not None
        job_id = await submit_audio(app, bad_audio(FINE), tmp_path)
        (tmp_path / "tmp").unlink()
        assert (await wait_for_end(app, job_id)).status == JobStatus.COMPLETED


async def test_a_temporary_failure_of_fork_fails_no_job(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EAGAIN on fork: the slots cannot be started again, and no job fails."""
    opened = EngineProcess._open

    def refuse(_: EngineProcess) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    async with running_consumer(app) as consumer, scheduling(app):
        monkeypatch.setattr(EngineProcess, "_open", refuse)
        for child in await process_ids(consumer.pool):
            os.kill(child, signal.SIGKILL)
        accepted = [await submit_audio(app, bad_audio(FINE), tmp_path) for _ in range(3)]
        await eventually(lambda: consumer.health.reason is not None)
        assert str(consumer.health.reason).startswith(EngineUnavailableError.code)
        for job_id in accepted:
            assert (await get_job(app, job_id)).status in (JobStatus.PENDING, JobStatus.PROCESSING)
        monkeypatch.setattr(EngineProcess, "_open", opened)
        for job_id in accepted:
            job = await wait_for_end(app, job_id)
            assert (job.status, job.retry_count) == (JobStatus.COMPLETED, 0)


async def test_a_recording_lost_by_the_machine_is_a_machine_fault(
    app: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is removed between download and decode, and ffmpeg reports the missing file as invalid."""
    original, left = PrepareHandler._decode, [1]

    async def cleaned(self: PrepareHandler, source: Path, *more: Any) -> Any:
        if left:
            left.pop()
            shutil.rmtree(source.parent)
            raise InvalidAudioFormatError
        return await original(self, source, *more)

    monkeypatch.setattr(PrepareHandler, "_decode", cleaned)
    async with running_consumer(app), scheduling(app):
        job = await wait_for_end(app, await submit_audio(app, bad_audio(FINE), tmp_path))
    assert (job.status, job.retry_count) == (JobStatus.COMPLETED, 0)


@pytest.mark.parametrize(
    "operation",
    ["write a file", "read an object", "start ffmpeg", "connect", "fetch from an address", "fetch from a name"],
)
def test_a_process_out_of_file_descriptors_fails_no_job(tmp_path: Path, operation: str) -> None:
    """The kernel's own EMFILE, three times in a row: the row is handed back uncounted, and the consumer is sick."""
    child = [sys.executable, "-m", "tests.integration.starved_child", str(tmp_path), operation]
    run = subprocess.run(child, capture_output=True, text=True, timeout=SECONDS, check=True)
    outcome = json.loads(run.stdout.splitlines()[-1])
    assert (outcome["verdict"], outcome["status"], outcome["failures"]) == ("Ack", "PENDING", 0)
    assert outcome["error"] is None
    assert outcome["sick"].startswith("MACHINE_FAULT")
    assert "EMFILE" in outcome["sick"]


async def test_health_reports_a_full_disk(tmp_path: Path) -> None:
    """The API's machine has no space and accepts no uploads."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:  # noqa: ASYNC221
        pytest.skip("mounting a small file system needs root")
    try:
        async with open_application(settings_for(tmp_path, data_dir=small)) as app:
            assert (await app.services.health_check.run()).checks["disk"] == "ok"
            with contextlib.suppress(OSError), (small / "filler").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            state = await app.services.health_check.run()
            assert (state.healthy, state.checks["disk"]) == (False, "down: DISK_FULL")
            (small / "filler").unlink()
            assert (await app.services.health_check.run()).healthy
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)  # noqa: ASYNC221


# -- shutdown ---------------------------------------------------------------------------------------------------------
class Draining:
    """A subscription whose drain ends only while another one drains, too."""

    def __init__(self, both: asyncio.Barrier) -> None:
        self._both = both

    async def failed(self) -> Exception:
        await asyncio.Event().wait()
        raise AssertionError

    async def cancel(self) -> None:
        return

    async def drain(self, grace: float) -> None:
        await self._both.wait()


async def test_all_queues_share_one_grace_period(app: Application) -> None:
    consumer = bootstrap.consumer(app)
    both = asyncio.Barrier(2)
    consumer._subscriptions = [Draining(both), Draining(both)]
    async with asyncio.timeout(SECONDS):
        await consumer.stop()


async def test_a_consumer_fails_with_its_subscription(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(app.broker, MemoryBroker)

    async def broken(_: _Subscription) -> None:
        raise RuntimeError("a bug in the pump")

    monkeypatch.setattr(_Subscription, "_deliver", broken)
    async with running_consumer(app) as consumer, asyncio.timeout(SECONDS):
        assert "a bug in the pump" in str(await consumer.failed())


async def test_a_stopped_consumer_leaves_no_process(app: Application) -> None:
    async with running_consumer(app) as consumer:
        children = await process_ids(consumer.pool)
        os.kill(children[0], signal.SIGKILL)
    assert not any(psutil.pid_exists(child) and psutil.Process(child).status() != "zombie" for child in children)
