"""Decoding of recordings to working audio by ffmpeg, whose output is read from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE
from core.errors import AudioTooLongError, CorruptedFileError, DecodeTimeoutError, DiskFullError
from core.faults import is_disk_full
from core.files import BLOCK_SIZE
from worker import ffmpeg

log = structlog.get_logger(__name__)
WRITTEN_BYTES = 512 * 1024
"""Bytes of ffmpeg's output that are written at a time."""
LOG_LIMIT = 64 * 1024
"""Bytes of ffmpeg's log that are kept."""
MAX_LOG = 4 * 1024**2
"""Bytes of log after which ffmpeg is killed. A file of 540 KB can cause 96 MB of warnings."""


OnWritten = Callable[[int, float | None], Awaitable[Path | None]]
"""Called after each write with the number of samples so far and the length in seconds that the file states, if any.

Returns the file in which the samples continue; None: the same. ffmpeg waits meanwhile.
"""


async def _continue(_samples: int, _stated: float | None) -> None:
    return None


async def decode(
    source: Path,
    target: Path,
    *,
    max_duration: float,
    deadline: float,
    on_pcm: Callable[[bytes], None],
    on_written: OnWritten = _continue,
) -> int:
    """Decode `source` to `target` as 16 kHz mono s16le PCM and return the number of samples.

    Each block is also passed to `on_pcm` in a thread. Samples are placed by the container's timestamps, within the
    bounds of `worker.timeline`. max_duration and deadline in seconds, without the time in `on_written`. ffmpeg never
    outlives the call. Raises InvalidAudioFormatError, CorruptedFileError, AudioTooLongError, DecodeTimeoutError,
    OutOfMemoryError, DiskFullError, OSError.
    """
    try:
        async with asyncio.timeout(deadline) as timer:
            output = _Output(target, on_pcm, _untimed(on_written, timer))
            status, text, samples = await _decode(source, output, max_duration + 1, deadline)
    except TimeoutError as error:
        raise DecodeTimeoutError from error
    except OSError as error:
        if is_disk_full(error):
            raise DiskFullError from error
        raise
    if samples > max_duration * SAMPLE_RATE:
        raise AudioTooLongError(
            "The recording is longer than {limit} seconds. Split it into shorter recordings.", limit=round(max_duration)
        )
    failure = ffmpeg.decode_error(status, text, samples)
    if failure is not None:
        log.info("decoding failed", action="decode_failed", status=status, ffmpeg=text[-1000:])
        raise failure
    if skipped := ffmpeg.skipped_seconds(text):
        log.warning("timestamp jumps were not followed", action="timestamps_bounded", seconds=round(skipped))
    return samples


def _untimed(on_written: OnWritten, timer: asyncio.Timeout) -> OnWritten:
    """Return `on_written` with the deadline suspended during each call: it may wait for an outage to end."""
    clock = asyncio.get_running_loop().time

    async def wrapper(samples: int, stated: float | None) -> Path | None:
        started, when = clock(), timer.when()
        timer.reschedule(None)
        try:
            return await on_written(samples, stated)
        finally:
            timer.reschedule(None if when is None else when + clock() - started)

    return wrapper


@dataclass(frozen=True, slots=True)
class _Output:
    """Destination of the samples: the first file, and the callbacks for each block."""

    target: Path
    on_pcm: Callable[[bytes], None]
    on_written: OnWritten


async def _decode(source: Path, output: _Output, limit: float, cpu_seconds: float) -> tuple[int, str, int]:
    """Return ffmpeg's exit status and log and the number of samples. A late start of the file is removed."""
    for rebase in (False, True):
        call = ffmpeg.command(source, limit=limit, cpu_seconds=cpu_seconds, rebase=rebase)
        async with _process(call, output.target.parent) as process, _read_log(process) as text:
            assert process.stdout is not None
            await text.described.wait()
            if not rebase and ffmpeg.starts_late(str(text)):
                continue
            stated = ffmpeg.stated_seconds(str(text))
            copying = asyncio.create_task(_copy(process.stdout, output, stated), name="copy ffmpeg's output")
            size = await _wait_for_copy(copying, text)
            status = await process.wait()
            await text.ended.wait()
            return status, str(text), size // BYTES_PER_SAMPLE
    raise AssertionError


async def _wait_for_copy(copying: asyncio.Task[int], text: _LogExcerpt) -> int:
    """Wait for the copy and return its size. Raises CorruptedFileError if the log exceeds its limit."""
    flooded = asyncio.create_task(text.flooded.wait(), name="limit ffmpeg's log")
    try:
        await asyncio.wait([copying, flooded], return_when=asyncio.FIRST_COMPLETED)
        if text.flooded.is_set():
            log.warning("ffmpeg killed, its log exceeds the limit", action="decode_flooded", ffmpeg=str(text)[-1000:])
            raise CorruptedFileError
        return copying.result()
    finally:
        for task in (copying, flooded):
            task.cancel()
        await asyncio.gather(copying, flooded, return_exceptions=True)


@contextlib.asynccontextmanager
async def _process(call: list[str], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process with an empty environment and no descriptors of ours. Kill it at the end."""
    pipe, devnull = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *call, stdin=devnull, stdout=pipe, stderr=pipe, limit=BLOCK_SIZE, env={}, cwd=folder
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # its pipes are closed once their ends are read, and reading may be paused
        await asyncio.shield(process.communicate())


class _LogExcerpt:
    """The start and end of ffmpeg's log, which may have any size.

    Events: `described`: the log contains the description of the input. `flooded`: the log exceeds MAX_LOG. `ended`: the
    log is complete.
    """

    def __init__(self) -> None:
        self.described, self.flooded, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._excerpt, self._size = b"", 0

    def __str__(self) -> str:
        return self._excerpt.decode(errors="replace")

    async def read(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(4096):
            self._size += len(data)
            self._excerpt += data
            if b"Stream mapping:" in self._excerpt or self._size > LOG_LIMIT:
                self.described.set()
            if len(self._excerpt) > LOG_LIMIT:
                self._excerpt = self._excerpt[: LOG_LIMIT // 4] + self._excerpt[-LOG_LIMIT // 2 :]
            if self._size > MAX_LOG:
                self.flooded.set()
        self.described.set()
        self.ended.set()


@contextlib.asynccontextmanager
async def _read_log(process: asyncio.subprocess.Process) -> AsyncIterator[_LogExcerpt]:
    assert process.stderr is not None
    text = _LogExcerpt()
    reading = asyncio.create_task(text.read(process.stderr), name="read ffmpeg's log")
    try:
        yield text
    finally:
        reading.cancel()


async def _copy(stream: asyncio.StreamReader, output: _Output, stated: float | None) -> int:
    """Write whole samples to the output's files, pass them to its callbacks, and return their size in bytes."""
    size, block = 0, bytearray()
    file = await asyncio.to_thread(output.target.open, "wb")

    def write(samples: bytes) -> None:
        file.write(samples)
        file.flush()
        output.on_pcm(samples)

    try:
        # each turn of the thread costs more than the work on a small block
        while data := await stream.read(BLOCK_SIZE):
            block += data
            if len(block) < WRITTEN_BYTES:
                continue
            whole = len(block) - len(block) % BYTES_PER_SAMPLE
            await asyncio.to_thread(write, bytes(block[:whole]))
            del block[:whole]
            size += whole
            target = await output.on_written(size // BYTES_PER_SAMPLE, stated)
            if target is not None:
                file.close()
                file = await asyncio.to_thread(target.open, "ab")
        whole = len(block) - len(block) % BYTES_PER_SAMPLE
        await asyncio.to_thread(write, bytes(block[:whole]))
    finally:
        file.close()
    return size + whole
