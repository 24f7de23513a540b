"""Renewal of the claims that a consumer holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from core.errors import DatabaseUnavailable
from internal.consumer import leases as module
from internal.consumer.leases import RETRY_DELAY, Leases
from repositories.claims import Claim

LEASE = 30.0
ONE, OTHER = (Claim(name, "worker", f"worker/{name}", 1, 0, 0) for name in ("one", "other"))
Renewal = tuple[tuple[Claim, ...], float]


class Renewals:
    """A database that records what is renewed. errors: raised by the first renewals; ended: claims that have ended."""

    def __init__(self, errors: Sequence[Exception | None] = (), ended: Sequence[Claim] = ()) -> None:
        self.calls: list[Renewal] = []
        self.transactions = 0
        self.errors, self.ended = list(errors), list(ended)

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[Renewals]:
        self.transactions += 1
        yield self

    async def renew(self, session: object, claims: tuple[Claim, ...], seconds: float) -> list[Claim]:
        assert session is self
        self.calls.append((claims, seconds))
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return self.ended


def leases_on(database: Renewals, monkeypatch: pytest.MonkeyPatch, seconds: float = LEASE) -> Leases:
    monkeypatch.setattr("repositories.leases.renew", database.renew)
    return Leases(database, seconds, job_timeout=60.0)  # type: ignore[arg-type]


async def delays_after(database: Renewals, monkeypatch: pytest.MonkeyPatch, count: int) -> list[float]:
    """The delays that follow the first renewals, in the background task itself."""
    leases, delays, enough, sleep = leases_on(database, monkeypatch), list[float](), asyncio.Event(), asyncio.sleep

    async def record(seconds: float) -> None:
        delays.append(seconds)
        if len(delays) == count:
            enough.set()
            await asyncio.Event().wait()
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    with leases.hold(ONE, 1.0):
        leases.start()
        async with asyncio.timeout(10):
            await enough.wait()
        await leases.stop()
    return delays


async def test_every_held_claim_is_renewed_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Renewals()
    leases = leases_on(database, monkeypatch)
    with leases.hold(ONE, 1.0), leases.hold(OTHER, 2.0):
        await leases.renew()
    assert database.calls == [((ONE, OTHER), LEASE)]
    await leases.renew()
    assert database.transactions == 1, "nothing is held"


async def test_the_work_of_an_ended_job_is_stopped_and_that_of_others_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Claim("gone", "worker", "worker/gone", 1, 0, 0)
    leases = leases_on(Renewals(ended=[ONE, gone]), monkeypatch)
    with leases.hold(ONE, 60.0), leases.hold(OTHER, 60.0):
        stopped, going_on = [asyncio.create_task(leases.run(claim, asyncio.Event().wait)) for claim in (ONE, OTHER)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await leases.renew()
        async with asyncio.timeout(10):
            await stopped
        assert not going_on.done()
        going_on.cancel()
        await asyncio.wait([going_on])
        # held, but its work is over
        await leases.renew()


async def test_leases_are_renewed_every_third_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Renewals()
    assert await delays_after(database, monkeypatch, 3) == [LEASE / 3] * 3
    assert database.calls == [((ONE,), LEASE)] * 3


@pytest.mark.parametrize("error", [DatabaseUnavailable(), TimeoutError(), RuntimeError("a bug")], ids=repr)
async def test_a_failed_renewal_is_repeated_soon(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    database = Renewals([None, error, error])
    with capture_logs() as logs:
        delays = await delays_after(database, monkeypatch, 4)
    assert delays == [LEASE / 3, RETRY_DELAY, RETRY_DELAY, LEASE / 3]
    repeated = isinstance(error, RuntimeError)
    assert len([line for line in logs if line.get("action") == "renewal_failed"]) == 1 + repeated


async def test_an_outage_after_a_recovery_is_logged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as logs:
        await delays_after(Renewals([DatabaseUnavailable(), None, DatabaseUnavailable()]), monkeypatch, 3)
    assert len([line for line in logs if line.get("action") == "renewal_failed"]) == 2


async def test_a_renewal_that_hangs_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_DELAY", 0.01)
    database, repeated = Renewals(), asyncio.Event()

    async def hang(*_: Any) -> list[Claim]:
        database.transactions += 1
        if database.transactions > 4:
            repeated.set()
        await asyncio.Event().wait()
        return []

    leases = leases_on(database, monkeypatch, seconds=0.03)
    monkeypatch.setattr("repositories.leases.renew", hang)
    with leases.hold(ONE, 1.0):
        leases.start()
        async with asyncio.timeout(10):
            await repeated.wait()
        await leases.stop()


async def test_start_and_stop_are_idempotent(monkeypatch: pytest.MonkeyPatch) -> None:
    database = Renewals()
    leases = leases_on(database, monkeypatch)
    await leases.stop()
    with leases.hold(ONE, 1.0):
        for _ in range(2):
            leases.start()
        renewing = [task for task in asyncio.all_tasks() if task.get_name() == "renew leases"]
        assert len(renewing) == 1
        await asyncio.sleep(0)
        for _ in range(2):
            await leases.stop()
        assert renewing[0].done()
        leases.start()
        assert len([task for task in asyncio.all_tasks() if task.get_name() == "renew leases"]) == 1
        await leases.stop()
