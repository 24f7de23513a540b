"""Batches of calls that an engine process runs together."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import TypeAlias

from worker.engine_choice import Choice
from worker.engine_process import EngineProcess
from worker.oom_retry import transcribe_with_less_memory
from worker.transcriber import EngineOutput, Options

MEMBER_SHARE, MOST_SHARES = 0.25, 2.0
"""Deadline of a batch, in deadlines of its calls: this much more for each call after the first, at most this much."""


Outputs: TypeAlias = list[EngineOutput | Exception]


class Mode(Enum):
    """Way to run a call. ALONE: in no batch; LESS_MEMORY: alone, in two halves, with one decoder."""

    BATCH = auto()
    ALONE = auto()
    LESS_MEMORY = auto()


@dataclass(slots=True, eq=False)
class Request:
    """A call that waits or runs. since: time of the loop; rank: order among those that wait."""

    model: Path
    choice: Choice
    pcm: bytes
    options: Options
    deadline: float
    mode: Mode
    since: float
    rank: float
    started: asyncio.Event = field(default_factory=asyncio.Event)
    output: asyncio.Future[EngineOutput | None] = field(default_factory=lambda: asyncio.Future())

    def is_compatible(self, other: Request) -> bool:
        """Return True if both can run in one batch."""
        return (self.model, self.choice) == (other.model, other.choice)

    def fail(self, error: Exception) -> None:
        if not self.output.done():
            self.output.set_exception(error)
        self.started.set()


async def transcribe_batch(process: EngineProcess, batch: list[Request], threads: int) -> Outputs:
    """Run a batch; return an output or error for each of its requests."""
    try:
        first = batch[0]
        await process.select(first.choice.variant)
        await process.ensure()
        if first.mode is Mode.LESS_MEMORY:
            return [
                await transcribe_with_less_memory(
                    process, first.model, first.pcm, first.options, first.deadline, threads
                )
            ]
        shares = min(1 + MEMBER_SHARE * (len(batch) - 1), MOST_SHARES)
        deadline = max(request.deadline for request in batch) * shares
        calls = [(request.pcm, request.options) for request in batch]
        outputs = await process.transcribe(first.model, calls, threads, deadline)
        if len(outputs) != len(batch):
            raise RuntimeError(f"the engine returned {len(outputs)} outputs for {len(batch)} calls")
        return list(outputs)
    except Exception as error:  # noqa: BLE001
        return [error] * len(batch)
