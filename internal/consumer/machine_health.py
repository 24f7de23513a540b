"""Health of this consumer's machine: faults are counted, and a sick machine is probed until it works again."""

from __future__ import annotations

import asyncio
import os
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from core.consumer_metrics import SICK
from core.errors import InternalError, Kind, MachineError, SttError
from core.faults import machine_error, machine_fault
from internal.consumer.workspace import Workspace
from repositories.claims import Claim
from worker import ffmpeg
from worker.pool import Pool

log = structlog.get_logger(__name__)
MAX_FAULTS = 3
"""Consecutive faults after which the machine counts as sick."""
FIRST_PROBE_DELAY, MAX_PROBE_DELAY = 2.0, 60.0
"""Seconds before a probe of a sick machine, doubled after each failed probe."""
FIRST_HAND_BACK_DELAY, MAX_HAND_BACK_DELAY = 5.0, 600.0
"""Seconds before a handed-back row may be claimed again, doubled each time."""
MAX_TRACKED_ROWS = 10_000
PROBE_DESCRIPTORS = 32
"""File descriptors that a probe opens."""
FFMPEG_TIMEOUT = 20.0
"""Seconds that ffmpeg may take to start."""
_MAX_DOUBLINGS = 20


class HandBackDelays:
    """Growing delays before a handed-back row is published again, so that it does not spin."""

    def __init__(self) -> None:
        self._hand_backs: OrderedDict[tuple[str, int | None], int] = OrderedDict()

    def next(self, claim: Claim) -> float:
        """Count a hand-back of the claim's row; return the delay in seconds, with jitter."""
        row = (claim.job_id, claim.chunk_index)
        count = self._hand_backs.pop(row, 0)
        self._hand_backs[row] = count + 1
        if len(self._hand_backs) > MAX_TRACKED_ROWS:
            self._hand_backs.popitem(last=False)
        delay = min(FIRST_HAND_BACK_DELAY * 2.0 ** min(count, _MAX_DOUBLINGS), MAX_HAND_BACK_DELAY)
        return delay * random.uniform(1.0, 1.3)

    def reset(self, claim: Claim) -> None:
        self._hand_backs.pop((claim.job_id, claim.chunk_index), None)


class MachineHealth:
    """Fault counter and state of this machine. `reason` is set while the machine is sick."""

    def __init__(self, temp_dir: Path) -> None:
        """temp_dir: the consumer's own folder; an error about a path in it is a fault of the machine."""
        self.reason: str | None = None
        self._temp_dir = temp_dir
        self._faults = 0
        self._probes = 0
        self._sick = asyncio.Event()

    def classify(self, error: Exception) -> SttError:
        """Return the error by which a failed run is handled. Count machine faults and unforeseen errors."""
        if isinstance(error, SttError) and error.kind not in (Kind.INFRASTRUCTURE, Kind.MACHINE):
            return error
        fault = self.fault_behind(error)
        if fault is None and isinstance(error, SttError) and error.kind is Kind.INFRASTRUCTURE:
            return error
        self.record_fault(fault or error)
        if fault is None:
            log.error("unforeseen error", action="internal_error", exc_info=error)
        return fault or InternalError()

    def fault_behind(self, error: Exception) -> MachineError | None:
        """Return the machine fault that caused the error, such as too few file descriptors for a connection."""
        return machine_fault(error, (self._temp_dir,))

    def record_success(self) -> None:
        self._faults = self._probes = 0

    def record_fault(self, error: Exception) -> None:
        self._faults += 1
        log.warning("machine fault", action="machine_fault", in_a_row=self._faults, reason=str(error))
        if self._faults >= MAX_FAULTS:
            self.mark_sick(error)

    def mark_sick(self, error: Exception) -> None:
        if self.reason is not None:
            return
        code = error.code if isinstance(error, MachineError) else "INTERNAL"
        # shown by /health: must not contain names of files or hosts
        self.reason = f"{code}: {error}" if isinstance(error, MachineError) else code
        self._sick.set()
        SICK.set(1)
        log.critical("machine is sick, consuming stopped", action="consumer_sick", code=code, reason=str(error))

    def mark_recovered(self) -> None:
        self.reason, self._faults = None, 0
        self._sick.clear()
        SICK.set(0)
        log.warning("machine has recovered, consuming resumed", action="consumer_well")

    async def wait_until_sick(self) -> None:
        await self._sick.wait()

    async def wait_for_recovery(self, probe: Callable[[], Awaitable[None]]) -> None:
        """Repeat `probe` until it passes. Delays keep growing across recoveries until a run succeeds."""
        while True:
            delay = min(FIRST_PROBE_DELAY * 2.0 ** min(self._probes, _MAX_DOUBLINGS), MAX_PROBE_DELAY)
            self._probes += 1
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            try:
                await probe()
            except (MachineError, OSError, RuntimeError, MemoryError) as error:
                log.warning("machine is still sick", action="probe_failed", reason=str(error), next_probe=delay * 2)
                continue
            return


async def probe_machine(workspace: Workspace, pool: Pool) -> None:
    """Repair the workspace and the pool, and try what a run needs. Raises MachineError, OSError, RuntimeError."""
    await asyncio.to_thread(workspace.ensure)
    await asyncio.to_thread(workspace.probe)
    await asyncio.to_thread(_open_descriptors)
    await _start_ffmpeg()
    await pool.ensure()


def _open_descriptors() -> None:
    descriptors: list[int] = []
    try:
        for _ in range(PROBE_DESCRIPTORS):
            descriptors.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def _start_ffmpeg() -> None:
    devnull = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        ffmpeg.program(), "-version", stdin=devnull, stdout=devnull, stderr=devnull, env={}
    )
    try:
        async with asyncio.timeout(FFMPEG_TIMEOUT):
            status = await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        status = -1
    if status != 0:
        raise machine_error("ffmpeg does not start")
