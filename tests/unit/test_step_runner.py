"""Claiming and running one step; what becomes of a failed run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.errors import CorruptedFileError, DatabaseUnavailable, SttError, WhisperCrashError
from core.messaging.port import Ack, Delivery, Message, MessageType, Retry
from internal.consumer import step_runner
from internal.consumer.leases import Leases
from internal.consumer.machine_health import MachineHealth
from internal.consumer.retrying_database import RetryingDatabase
from internal.consumer.step_runner import RetryPolicy, StepRunner
from internal.outage_retry import OutageRetry
from repositories.claims import MAX_LOST, Claim, ClaimRequest
from repositories.transitions import RELEASE_DELAY

CLAIM = Claim("job", "worker", "worker/1", 1, 0, 0)
JOB: Any = object()
MESSAGE = Message(MessageType.PREPARE, "job")
DELIVERY = Delivery(MESSAGE, redelivered=False)
POLICY = RetryPolicy(max_retries=2, delays=(2.0, 6.0), default_delay=9.0, jitter=False, failure_ttl=77)


class Rows:
    """A database whose rows do what the test says, and the record of what was asked of it."""

    def __init__(self) -> None:
        self.claims: list[ClaimRequest] = []
        self.claimable: list[bool] = [True]
        self.suspect = False
        self.lost_commits = 0
        self.down = False
        self.retry_count: int | None = 1
        self.still_open = True
        self.retried: list[tuple[Claim, SttError, float]] = []
        self.failed: list[tuple[str, SttError, str, Claim, int]] = []
        self.handed_back: list[tuple[Claim, float]] = []
        self.asked: list[tuple[str, int | None]] = []
        self.dead_letters: list[str] = []

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Rows]:
        yield self

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Rows]:
        if self.down:
            raise DatabaseUnavailable
        yield self
        if self.lost_commits:
            self.lost_commits -= 1
            raise DatabaseUnavailable

    async def claim(self, session: object, request: ClaimRequest) -> tuple[Claim, Any] | None:
        assert session is self
        self.claims.append(request)
        return (CLAIM, JOB) if self.claimable[min(len(self.claims), len(self.claimable)) - 1] else None

    async def is_suspect(self, _: object, job_id: str, chunk_index: int | None) -> bool:
        self.asked.append((job_id, chunk_index))
        return self.suspect

    async def retry_later(self, _: object, claim: Claim, error: SttError, delay: float) -> int | None:
        self.retried.append((claim, error, delay))
        return self.retry_count

    async def fail_job(self, _: object, job_id: str, error: SttError, token: str, *, claim: Claim, ttl: int) -> bool:
        self.failed.append((job_id, error, token, claim, ttl))
        return self.still_open

    async def hand_back(self, _: object, claim: Claim, delay: float) -> bool:
        self.handed_back.append((claim, delay))
        return True

    async def publish(self, job_id: str) -> None:
        self.dead_letters.append(job_id)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    found = Rows()
    monkeypatch.setattr("repositories.claims.is_suspect", found.is_suspect)
    for name in ("retry_later", "fail_job", "hand_back"):
        monkeypatch.setattr(f"repositories.failures.{name}", getattr(found, name))
    monkeypatch.setattr("internal.outage_retry.FIRST_DELAY", 0.01)
    return found


@pytest.fixture
def steps(rows: Rows, tmp_path: Path) -> StepRunner:
    database: Any = rows
    retrying = RetryingDatabase(database, OutageRetry())
    leases = Leases(database, 30.0, job_timeout=3600.0)
    return StepRunner("me", retrying, leases, MachineHealth(tmp_path), database, POLICY)


async def nothing(_: object = None) -> None:
    return


# -- claiming ---------------------------------------------------------------------------------------------------------
async def test_a_claimed_row_is_held_while_its_work_runs(steps: StepRunner, rows: Rows) -> None:
    held: list[dict[Claim, Any]] = []

    async def work(claimed: tuple[Claim, Any]) -> None:
        assert claimed == (CLAIM, JOB)
        held.append(dict(steps.leases._held))

    assert await steps.run(DELIVERY, 12.0, rows.claim, work) == (Ack(), (CLAIM, JOB))
    assert [(claim, one.deadline) for claim, one in held[0].items()] == [(CLAIM, 12.0)]
    assert not steps.leases._held
    [request] = rows.claims
    assert (request.worker, request.lease, request.alone) == ("me", 30.0, False)


async def test_a_claim_whose_commit_got_no_answer_is_repeated_as_it_was(steps: StepRunner, rows: Rows) -> None:
    rows.lost_commits = 1
    await steps.run(DELIVERY, 12.0, rows.claim, nothing)
    first, second = rows.claims
    assert first == second


async def test_there_is_nothing_to_do_for_a_row_that_another_consumer_has(steps: StepRunner, rows: Rows) -> None:
    rows.claimable = [False]
    delivery = Delivery(replace(MESSAGE, chunk_index=3), redelivered=False)
    assert await steps.run(delivery, 12.0, rows.claim, nothing) == (Ack(), None)
    assert len(rows.claims) == 1
    assert rows.asked == [("job", 3)]


async def test_a_suspect_runs_alone(steps: StepRunner, rows: Rows) -> None:
    rows.suspect, rows.claimable = True, [False, True]
    beside = asyncio.Event()

    async def work(_: object) -> None:
        other = asyncio.create_task(steps.quarantine.shared().__aenter__())
        await asyncio.sleep(0.01)
        assert not other.done()
        other.cancel()
        beside.set()

    assert await steps.run(DELIVERY, 12.0, rows.claim, work) == (Ack(), (CLAIM, JOB))
    assert beside.is_set()
    assert [request.alone for request in rows.claims] == [False, True]


async def test_a_suspect_that_another_consumer_has_by_now_is_left(steps: StepRunner, rows: Rows) -> None:
    rows.suspect, rows.claimable = True, [False, False]
    assert await steps.run(DELIVERY, 12.0, rows.claim, nothing) == (Ack(), None)


async def test_the_verdict_of_a_failed_run_is_that_of_its_message(steps: StepRunner, rows: Rows) -> None:
    async def fail(_: object) -> None:
        raise WhisperCrashError

    verdict, claimed = await steps.run(DELIVERY, 12.0, rows.claim, fail)
    assert verdict == Retry(2.0, replace(MESSAGE, failures=1))
    assert claimed == (CLAIM, JOB)
    rows.suspect, rows.claimable = True, [False, False, False, True]
    assert (await steps.run(DELIVERY, 12.0, rows.claim, fail))[0] == Ack(), "not claimed"
    rows.claims.clear()
    rows.claimable = [False, True]
    assert (await steps.run(DELIVERY, 12.0, rows.claim, fail))[0] == verdict


# -- settling ---------------------------------------------------------------------------------------------------------
async def settled(steps: StepRunner, error: BaseException | None, claim: Claim = CLAIM) -> object:
    async def work() -> None:
        if error is not None:
            raise error

    return await steps.run_claimed(claim, MESSAGE, work)


async def test_success_forgets_faults_and_hand_backs(steps: StepRunner, rows: Rows) -> None:
    for _ in range(2):
        for _ in range(2):
            await settled(steps, OSError(28, "No space left on device"))
        assert await settled(steps, None) == Ack()
    assert steps.health.reason is None
    delays = [delay for _, delay in rows.handed_back]
    assert [delay < 8 for delay in delays] == [True, False, True, False]
    assert all(claim == CLAIM for claim, _ in rows.handed_back)


async def test_an_outage_hands_the_row_back(steps: StepRunner, rows: Rows) -> None:
    assert await settled(steps, DatabaseUnavailable()) == Ack()
    [(claim, delay)] = rows.handed_back
    assert claim == CLAIM
    assert 5 <= delay <= 6.5
    assert not rows.retried
    assert not rows.failed


@pytest.mark.parametrize(("failures", "delay"), [(0, 2.0), (1, 6.0)])
async def test_work_is_retried_up_to_the_limit(steps: StepRunner, rows: Rows, failures: int, delay: float) -> None:
    error, claim = WhisperCrashError(), replace(CLAIM, failures=failures)
    rows.retry_count = failures + 1
    assert await settled(steps, error, claim) == Retry(delay, replace(MESSAGE, failures=failures + 1))
    assert rows.retried == [(claim, error, delay)]
    assert not rows.failed


async def test_jitter_delays_the_row_and_not_the_message(
    steps: StepRunner, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 10 * low + high)
    jittery = replace(steps, retries=replace(POLICY, jitter=True))
    assert await settled(jittery, WhisperCrashError()) == Retry(2.0, replace(MESSAGE, failures=1))
    assert rows.retried[0][2] == 2.0 * 11.5


async def test_a_run_that_lost_its_claim_is_not_retried(steps: StepRunner, rows: Rows) -> None:
    rows.retry_count = None
    assert await settled(steps, WhisperCrashError()) == Ack()


class OnceMore(WhisperCrashError):
    max_retries = 1


class NeverAgain(WhisperCrashError):
    max_retries = 0


@pytest.mark.parametrize(
    ("error", "failures", "lost"),
    [
        (WhisperCrashError(), 2, 0),
        (OnceMore(), 1, 0),
        (NeverAgain(), 0, 0),
        (CorruptedFileError(), 0, 0),
        (None, 0, MAX_LOST + 1),
    ],
    ids=["limit", "limit of the error", "no retry", "permanent", "lost too often"],
)
async def test_a_job_fails_with_its_dead_letter(
    steps: StepRunner,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    error: SttError | None,
    failures: int,
    lost: int,
) -> None:
    monkeypatch.setattr("internal.services.dead_letters.new_token", lambda: "token")
    claim = replace(CLAIM, failures=failures, lost=lost)
    assert await settled(steps, error, claim) == Ack()
    [(job_id, stored, token, failed, ttl)] = rows.failed
    assert (job_id, token, failed, ttl) == ("job", "token", claim, 77)
    assert stored is error or (error is None and isinstance(stored, WhisperCrashError))
    assert rows.dead_letters == ["job"]
    assert not rows.retried


async def test_a_row_lost_as_often_as_allowed_runs(steps: StepRunner, rows: Rows) -> None:
    claim = replace(CLAIM, lost=MAX_LOST)
    assert await settled(steps, None, claim) == Ack()
    assert not rows.failed
    assert isinstance(await settled(steps, WhisperCrashError(), claim), Retry)


async def test_a_job_that_has_ended_meanwhile_gets_no_dead_letter(steps: StepRunner, rows: Rows) -> None:
    rows.still_open = False
    assert await settled(steps, CorruptedFileError()) == Ack()
    assert not rows.dead_letters


# -- shutdown ---------------------------------------------------------------------------------------------------------
async def cancelled(steps: StepRunner) -> None:
    task = asyncio.create_task(steps.run_claimed(CLAIM, MESSAGE, asyncio.Event().wait))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([task])
    assert task.cancelled()


async def test_a_cancelled_run_is_handed_back_for_another_consumer(steps: StepRunner, rows: Rows) -> None:
    await cancelled(steps)
    assert rows.handed_back == [(CLAIM, RELEASE_DELAY)]


async def test_a_shutdown_does_not_wait_for_a_database_that_is_down(
    steps: StepRunner, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows.down = True
    await cancelled(steps)

    async def hang(*_: object) -> bool:
        await asyncio.Event().wait()
        return True

    rows.down = False
    monkeypatch.setattr("repositories.failures.hand_back", hang)
    monkeypatch.setattr(step_runner, "SHUTDOWN_HAND_BACK_TIMEOUT", 0.05)
    await cancelled(steps)


# -- the policy -------------------------------------------------------------------------------------------------------
def test_the_last_delay_is_repeated() -> None:
    assert [POLICY.delay(failures) for failures in (0, 1, 2, 9)] == [2.0, 6.0, 6.0, 6.0]
    assert POLICY.max_delay == 6.0
    none = replace(POLICY, delays=())
    assert [none.delay(0), none.delay(5), none.max_delay] == [9.0] * 3
