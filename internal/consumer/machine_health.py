"""Health of this consumer's machine: faults in a row are counted, a sick consumer stops consuming and probes itself."""

from __future__ import annotations

import asyncio
import os
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import structlog
from prometheus_client import Gauge

from core.errors import MachineError
from core.faults import machine_error
from internal.consumer.workspace import Workspace
from repositories.claims import Claim
from worker import ffmpeg
from worker.pool import Pool

log = structlog.get_logger(__name__)
SICK = Gauge("stt_consumer_sick", "1 while this consumer has stopped consuming because of faults of its machine")
LIMIT = 3
"""Faults without a success between them after which the machine counts as sick."""
FIRST_PROBE, LONGEST_PROBE = 2.0, 60.0
"""Seconds between two probes of a sick machine."""
FIRST_DELAY, LONGEST_DELAY = 5.0, 600.0
"""Seconds for which a row that met a machine fault is left alone."""
REMEMBERED = 10_000
DESCRIPTORS = 32
FFMPEG_SECONDS = 20.0
Step = Callable[[], Awaitable[None]]


class Delays:
    """How long a row is left alone after it was handed back: longer each time, so that it does not spin here."""

    def __init__(self) -> None:
        self._times: OrderedDict[tuple[str, int | None], int] = OrderedDict()

    def next(self, claim: Claim) -> float:
        """Seconds."""
        row = (claim.job_id, claim.chunk_index)
        times = self._times.pop(row, 0)
        self._times[row] = times + 1
        if len(self._times) > REMEMBERED:
            self._times.popitem(last=False)
        return min(FIRST_DELAY * 2.0 ** min(times, 20), LONGEST_DELAY) * random.uniform(1.0, 1.3)

    def forget(self, claim: Claim) -> None:
        self._times.pop((claim.job_id, claim.chunk_index), None)


class MachineHealth:
    """Counts faults and successes. `reason` is set while the machine is sick."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.reason: str | None = None
        self._limit = limit
        self._in_a_row = 0
        self._spells = 0
        self._sick = asyncio.Event()

    def success(self) -> None:
        """Something that could have failed by the machine's fault did not."""
        self._in_a_row = self._spells = 0

    def fault(self, error: Exception) -> None:
        self._in_a_row += 1
        log.warning("fault of this machine", action="machine_fault", in_a_row=self._in_a_row, reason=str(error))
        if self._in_a_row >= self._limit:
            self.declare_sick(error)

    def declare_sick(self, error: Exception) -> None:
        if self.reason is not None:
            return
        code = error.code if isinstance(error, MachineError) else "INTERNAL"
        # read by anybody who may see /health: without names of files and hosts
        self.reason = f"{code}: {error}" if isinstance(error, MachineError) else code
        self._sick.set()
        SICK.set(1)
        log.critical("machine is sick, no more work is taken", action="consumer_sick", code=code, reason=str(error))

    async def wait_sick(self) -> None:
        await self._sick.wait()

    async def recover(self, probe: Step) -> None:
        """Repeat `probe` until it passes: at growing intervals, also over spells without a success between them."""
        while True:
            pause = min(FIRST_PROBE * 2.0 ** min(self._spells, 20), LONGEST_PROBE)
            self._spells += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            try:
                await probe()
            except (MachineError, OSError, RuntimeError, MemoryError) as error:
                log.warning("machine is still sick", action="probe_failed", reason=str(error), next_probe=pause * 2)
                continue
            return

    def well(self) -> None:
        self.reason, self._in_a_row = None, 0
        self._sick.clear()
        SICK.set(0)
        log.warning("machine is well again, consuming", action="consumer_well")


async def probe_machine(workspace: Workspace, pool: Pool) -> None:
    """Repair what can be repaired, then try everything a run needs. Raises MachineError, OSError, RuntimeError."""
    await asyncio.to_thread(workspace.ensure)
    await asyncio.to_thread(workspace.probe)
    await asyncio.to_thread(_open_descriptors)
    await _start_ffmpeg()
    await pool.ensure()


def _open_descriptors() -> None:
    opened: list[int] = []
    try:
        for _ in range(DESCRIPTORS):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401
    finally:
        for descriptor in opened:
            os.close(descriptor)


async def _start_ffmpeg() -> None:
    nothing = asyncio.subprocess.DEVNULL
    program = ffmpeg.program()
    process = await asyncio.create_subprocess_exec(
        program, "-version", stdin=nothing, stdout=nothing, stderr=nothing, env={}
    )
    try:
        async with asyncio.timeout(FFMPEG_SECONDS):
            status = await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        status = -1
    if status != 0:
        raise machine_error("ffmpeg does not start")
