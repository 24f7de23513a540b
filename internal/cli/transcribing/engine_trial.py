"""Progress of an engine trial, for which the jobs of a command wait before their first chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from internal.cli.transcribing.reporters import Reporter
from internal.client import AsyncClient, ClientError

PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds between two requests; doubled while no trial runs."""


async def follow(client: AsyncClient, reporter: Reporter) -> None:
    """Report the trial that the service runs, until cancelled. A service that does not answer has none."""
    shown, pause = None, PAUSE
    while True:
        trial = await _current(client)
        if trial != shown:
            reporter.choosing(trial)
        shown, pause = trial, PAUSE if trial or shown else min(pause * 2, LONGEST_PAUSE)
        await asyncio.sleep(pause)


async def _current(client: AsyncClient) -> Mapping[str, Any] | None:
    try:
        trials = (await client.health()).get("engine_trials")
    except ClientError:
        return None
    first = trials[0] if isinstance(trials, list) and trials else None
    valid = isinstance(first, dict) and all(type(first.get(name)) is int for name in ("number", "count"))
    return first if valid else None
