"""Each row of the error table: what a consumer makes of the error, and what the sender reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core import errors
from core.domain.job import JobStatus
from core.errors import Kind, SttError
from core.messaging.port import Ack, Message, MessageType, Retry
from internal.bootstrap import Parts
from internal.consumer.context import Context
from internal.consumer.runtime import Consumer
from tests.contract import invariants, rows
from tests.integration.test_consumer import configured, made

DELAYS = (2.0, 6.0, 18.0)


def table() -> list[type[SttError]]:
    found, todo = [], [SttError]
    while todo:
        todo += (error := todo.pop()).__subclasses__()
        found.append(error)
    return sorted(found, key=lambda error: error.__name__)


GROUPS = (SttError, errors.WorkError, errors.InfrastructureError, errors.RequestError)
ROWS = [error for error in table() if error not in GROUPS and error.__module__ == "core.errors"]


def of(kind: Kind) -> list[type[SttError]]:
    return [error for error in ROWS if error.kind is kind]


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with made(configured(tmp_path, retry_delay=2, retry_backoff_multiplier=3)) as found:
        yield found


async def settle(context: Context, job_id: str, error: SttError, failures: int = 0) -> object:
    """A claimed chunk whose run ends with the error."""
    claimed = await rows.claim(context.parts.database, job_id, 0, failures)
    assert claimed is not None

    async def fail() -> None:
        raise error

    verdict = await context.settled(claimed.claim, Message(MessageType.TRANSCRIBE, job_id, 0), fail)
    await invariants.check(context.parts.database)
    return verdict


@pytest.mark.parametrize("error", ROWS, ids=lambda error: error.code)
def test_every_row_has_a_code_and_two_texts(error: type[SttError]) -> None:
    assert error.code.isupper()
    assert error.en != error.vi
    if error is not errors.InvalidFieldError:
        assert error("a detail").message("en") == "a detail"
        assert error("a detail").message("vi") == error.vi
    assert 400 <= error.http_status <= 599
    assert [other for other in ROWS if other.code == error.code] == [error]


@pytest.mark.parametrize("error", of(Kind.PERMANENT), ids=lambda error: error.code)
async def test_permanent_ends_at_once(parts: Parts, error: type[SttError]) -> None:
    job_id = await rows.planned_job(parts.database, 2)
    assert await settle(Consumer(parts).context, job_id, error()) == Ack()
    job = await rows.job(parts.database, job_id)
    assert (job.status, job.error_code, job.error_message) == (JobStatus.FAILED, error.code, error.en)
    assert (job.retry_count, bool(job.replay_token)) == (0, True)


@pytest.mark.parametrize("error", of(Kind.WORK), ids=lambda error: error.code)
async def test_work_is_tried_again(parts: Parts, error: type[SttError]) -> None:
    context = Consumer(parts).context
    job_id = await rows.planned_job(parts.database, 1)
    allowed = 3 if error.max_retries is None else error.max_retries
    for failures in range(allowed):
        verdict = await settle(context, job_id, error(), failures)
        assert isinstance(verdict, Retry)
        assert verdict.delay == DELAYS[failures]
        assert verdict.message is not None
        assert verdict.message.failures == failures + 1
        chunk = await rows.chunk(parts.database, job_id, 0)
        assert (chunk.failures, chunk.attempts, chunk.error_code) == (failures + 1, failures + 1, error.code)
        assert chunk.error_message == error.en
    assert await settle(context, job_id, error(), allowed) == Ack()
    job = await rows.job(parts.database, job_id)
    assert (job.status, job.error_code, job.retry_count) == (JobStatus.FAILED, error.code, allowed)


@pytest.mark.parametrize("error", of(Kind.INFRASTRUCTURE), ids=lambda error: error.code)
async def test_infrastructure_is_counted_nowhere(parts: Parts, error: type[SttError]) -> None:
    job_id = await rows.planned_job(parts.database, 1)
    assert isinstance(await settle(Consumer(parts).context, job_id, error()), Retry)
    chunk = await rows.chunk(parts.database, job_id, 0)
    assert (chunk.failures, chunk.lost, chunk.holder, chunk.status) == (0, 0, None, JobStatus.PENDING)
    assert (await rows.job(parts.database, job_id)).retry_count == 0


async def test_an_unknown_exception_is_permanent_and_tells_nothing(parts: Parts) -> None:
    job_id = await rows.planned_job(parts.database, 1)
    claimed = await rows.claim(parts.database, job_id)
    assert claimed is not None

    async def fail() -> None:
        raise ZeroDivisionError("secret inner workings")

    message = Message(MessageType.TRANSCRIBE, job_id, 0)
    assert await Consumer(parts).context.settled(claimed.claim, message, fail) == Ack()
    job = await rows.job(parts.database, job_id)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "INTERNAL")
    assert "secret" not in str(job.error_message)
