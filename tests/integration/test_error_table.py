"""Each row of the error table: the consumer's verdict on the error, and the texts."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core import errors
from core.domain.job import JobStatus
from core.errors import DatabaseUnavailable, DiskFullError, Kind, MachineError, SttError
from core.errors_models import ModelStoreError, TransientHubError
from core.messaging.port import Ack, Message, MessageType, Retry
from internal import bootstrap
from internal.bootstrap import Application
from internal.consumer.runtime import Consumer
from tests.contract import invariants, rows
from tests.integration.test_consumer import open_application, settings_for

DELAYS = (2.0, 6.0, 18.0)


def table() -> list[type[SttError]]:
    classes, todo = [], [SttError]
    while todo:
        todo += (error := todo.pop()).__subclasses__()
        classes.append(error)
    return sorted(classes, key=lambda error: error.__name__)


GROUPS = (
    *(SttError, errors.ModelFileError, errors.WorkError, errors.InfrastructureError, errors.RequestError),
    *(ModelStoreError, TransientHubError),
)
WAITING = (Kind.INFRASTRUCTURE, Kind.MACHINE)
ROWS = [error for error in table() if error not in GROUPS and error.__module__.startswith("core.errors")]


def errors_of(kind: Kind) -> list[type[SttError]]:
    return [error for error in ROWS if error.kind is kind]


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Application]:
    async with open_application(settings_for(tmp_path, retry_delay_seconds=2, retry_backoff_multiplier=3)) as app:
        yield app


async def fail_with(app: Application, consumer: Consumer, job_id: str, error: Exception, failures: int = 0) -> object:
    """Fail the run of a claimed chunk with the error."""
    claimed = await rows.claim(app.database, job_id, 0, failures)
    assert claimed is not None

    async def fail() -> None:
        raise error

    verdict = await consumer.steps.run_claimed(claimed.claim, Message(MessageType.TRANSCRIBE, job_id, 0), fail)
    await invariants.check(app.database)
    return verdict


@pytest.mark.parametrize("error", ROWS, ids=lambda error: error.code)
def test_every_row_has_a_code_and_two_texts(error: type[SttError]) -> None:
    assert error.code.isupper()
    assert error.en != error.vi
    if error is not errors.InvalidFieldError:
        assert error("a detail").message("en") == "a detail"
        assert error("a detail").message("vi") == error.vi
    assert 400 <= error.http_status <= 599
    if error is not errors.JobTimeoutError:  # a client sees a timeout, whichever limit was exceeded
        same = [other for other in ROWS if other.code == error.code and other is not errors.JobTimeoutError]
        assert same == [error]


@pytest.mark.parametrize("error", errors_of(Kind.PERMANENT), ids=lambda error: error.code)
async def test_permanent_errors_fail_the_job_at_once(app: Application, error: type[SttError]) -> None:
    job_id = await rows.planned_job(app.database, 2)
    assert await fail_with(app, bootstrap.consumer(app), job_id, error()) == Ack()
    job = await rows.job(app.database, job_id)
    assert (job.status, job.error_code, job.error_message) == (JobStatus.FAILED, error.code, error.en)
    assert (job.retry_count, bool(job.replay_token)) == (0, True)


@pytest.mark.parametrize("error", errors_of(Kind.WORK), ids=lambda error: error.code)
async def test_work_errors_are_retried(app: Application, error: type[SttError]) -> None:
    consumer = bootstrap.consumer(app)
    job_id = await rows.planned_job(app.database, 1)
    allowed = 3 if error.max_retries is None else error.max_retries
    for failures in range(allowed):
        verdict = await fail_with(app, consumer, job_id, error(), failures)
        assert isinstance(verdict, Retry)
        assert verdict.delay == DELAYS[failures]
        assert verdict.message is not None
        assert verdict.message.failures == failures + 1
        chunk = await rows.chunk(app.database, job_id, 0)
        assert (chunk.failures, chunk.attempts, chunk.error_code) == (failures + 1, failures + 1, error.code)
        assert chunk.error_message == error.en
    assert await fail_with(app, consumer, job_id, error(), allowed) == Ack()
    job = await rows.job(app.database, job_id)
    assert (job.status, job.error_code, job.retry_count) == (JobStatus.FAILED, error.code, allowed)


@pytest.mark.parametrize(
    "error", [error for kind in WAITING for error in errors_of(kind)], ids=lambda error: error.code
)
async def test_outages_and_machine_faults_are_not_counted(app: Application, error: type[SttError]) -> None:
    """The row is handed back each time, with a growing delay."""
    consumer = bootstrap.consumer(app)
    job_id = await rows.planned_job(app.database, 1)
    waits: list[float] = []
    for _ in range(7):
        assert await fail_with(app, consumer, job_id, error()) == Ack()
        chunk = await rows.chunk(app.database, job_id, 0)
        assert (chunk.failures, chunk.lost, chunk.holder, chunk.status) == (0, 0, None, JobStatus.PENDING)
        assert chunk.due_at is not None
        waits.append((chunk.due_at - datetime.now(UTC)).total_seconds())
    assert waits == sorted(waits)
    assert waits[-1] > 60
    job = await rows.job(app.database, job_id)
    assert (job.retry_count, job.status) == (0, JobStatus.PROCESSING)


MACHINE = [
    *(OSError(number, "x") for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS, errno.EIO)),
    *(OSError(number, "x") for number in (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EAGAIN)),
    BlockingIOError(errno.EAGAIN, "fork"),
    FileNotFoundError(errno.ENOENT, "gone", "/somewhere/source"),
    PermissionError(errno.EACCES, "not yours", "/usr/bin/ffmpeg"),
    MemoryError(),
    RuntimeError("can't start new thread"),
]


@pytest.mark.parametrize("error", MACHINE, ids=repr)
async def test_refused_system_calls_are_machine_faults(app: Application, error: Exception) -> None:
    consumer = bootstrap.consumer(app)
    job_id = await rows.planned_job(app.database, 1)
    assert await fail_with(app, consumer, job_id, error) == Ack()
    chunk = await rows.chunk(app.database, job_id, 0)
    assert (chunk.failures, chunk.status, chunk.error_code) == (0, JobStatus.PENDING, None)


@pytest.mark.parametrize("error", [KeyError("bug"), ConnectionResetError(104, "x"), ssl.SSLError(5, "x")], ids=repr)
async def test_an_unknown_exception_is_retried_and_reveals_nothing(app: Application, error: Exception) -> None:
    consumer = bootstrap.consumer(app)
    job_id = await rows.planned_job(app.database, 1)
    for failures in range(3):
        assert isinstance(await fail_with(app, consumer, job_id, error, failures), Retry)
    assert await fail_with(app, consumer, job_id, error, 3) == Ack()
    job = await rows.job(app.database, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "INTERNAL")
    assert "bug" not in str(job.error_message)
    assert consumer.health.reason == "INTERNAL", "many in a row may be the machine's fault"


async def test_an_outage_for_lack_of_sockets_is_a_machine_fault(app: Application) -> None:
    """Waiting for a database that is up would delay the work for ten minutes without any effect."""
    consumer = bootstrap.consumer(app)

    async def connect() -> None:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            raise DatabaseUnavailable from error

    async with asyncio.timeout(5):
        with pytest.raises(MachineError):
            await consumer.outage_retry.run(connect)
    await consumer.outage_retry.ready()


async def test_three_consecutive_faults_mark_the_machine_as_sick(
    app: Application,
) -> None:
    consumer = bootstrap.consumer(app)
    job_id, other = await rows.planned_job(app.database, 1), await rows.planned_job(app.database, 1)
    claimed = await rows.claim(app.database, other)
    assert claimed is not None

    async def fine() -> None:
        return

    for _ in range(2):
        for _ in range(2):
            await fail_with(app, consumer, job_id, DiskFullError())
        await consumer.steps.run_claimed(claimed.claim, Message(MessageType.TRANSCRIBE, other, 0), fine)
    assert consumer.health.reason is None
    for _ in range(3):
        await fail_with(app, consumer, job_id, DiskFullError())
    assert str(consumer.health.reason).startswith("DISK_FULL")
