"""Lines about an outage: the first, one a minute, and the end."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from core import repeated_line
from core.errors import DatabaseUnavailable
from core.repeated_line import RepeatedLine
from internal.periodic_tasks import every


def test_an_outage_is_logged_at_its_start_and_its_end() -> None:
    lines = RepeatedLine()
    assert lines.end() is None
    assert [lines.due(), lines.due(), lines.due()] == [True, False, False]
    assert lines.end() is not None
    assert lines.end() is None
    assert lines.due()


def test_a_long_outage_is_logged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = RepeatedLine()
    assert lines.due()
    monkeypatch.setattr(repeated_line, "INTERVAL", 0.0)
    assert lines.due()


async def test_rounds_that_are_skipped_are_one_line() -> None:
    outcomes = [DatabaseUnavailable("gone"), DatabaseUnavailable("gone"), DatabaseUnavailable("gone"), None]
    ended = asyncio.Event()

    async def step() -> None:
        outcome = outcomes.pop(0) if outcomes else None
        if outcome is not None:
            raise outcome
        ended.set()

    with capture_logs() as logs:
        task = asyncio.create_task(every(0, step, "a task"))
        await ended.wait()
        task.cancel()
        await asyncio.wait([task])
    assert [line["action"] for line in logs] == ["round_skipped", "rounds_continue"]
    assert (logs[0]["task"], logs[0]["code"]) == ("a task", "DATABASE_UNAVAILABLE")
