"""Decode a recording to working audio: ffmpeg's PCM over a pipe, so that it dies with its consumer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE
from core.errors import AudioTooLongError, CorruptedFileError, DecodeTimeoutError, DiskFullError
from worker import ffmpeg

log = structlog.get_logger(__name__)
BLOCK = 1024 * 1024
LOG_LIMIT = 64 * 1024
"""Bytes kept of ffmpeg's log."""
LOG_FLOOD = 4 * 1024**2
"""Bytes of log after which a decoder is ended: a file of 540 KB can make it complain for 96 MB."""


async def decode(
    source: Path, target: Path, *, max_duration: float, deadline: float, on_pcm: Callable[[bytes], None]
) -> int:
    """Write `source` to `target` as 16 kHz mono s16le; every block also goes to `on_pcm` (in a thread).

    A sample's place is its time on the container's timeline; `worker.timeline` bounds what timestamps may claim.
    max_duration and deadline in seconds. Returns the number of samples. Raises InvalidAudioFormatError,
    CorruptedFileError, AudioTooLongError, DecodeTimeoutError, DiskFullError. No process is left behind.
    """
    try:
        async with asyncio.timeout(deadline):
            status, text, samples = await _decode(source, target, max_duration + 1, deadline, on_pcm)
    except TimeoutError as error:
        raise DecodeTimeoutError from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError from error
        raise
    if samples > max_duration * SAMPLE_RATE:
        raise AudioTooLongError(
            "The recording is longer than {limit} seconds. Split it into shorter recordings.", limit=round(max_duration)
        )
    problem = ffmpeg.decode_error(status, text, samples)
    if problem is not None:
        log.info("ffmpeg refused", action="decode_failed", status=status, ffmpeg=text[-1000:])
        raise problem
    if skipped_seconds := ffmpeg.skipped_seconds(text):
        log.warning(
            "timestamps that jump were not followed", action="timestamps_bounded", seconds=round(skipped_seconds)
        )
    return samples


async def _decode(
    source: Path, target: Path, limit: float, cpu_seconds: float, on_pcm: Callable[[bytes], None]
) -> tuple[int, str, int]:
    """Status, log and number of samples; decoded from the file's own zero where that is hours ago."""
    for rebase in (False, True):
        call = ffmpeg.command(source, limit=limit, cpu_seconds=cpu_seconds, rebase=rebase)
        async with _started(call, target.parent) as process, _reading(process) as text:
            assert process.stdout is not None
            await text.described.wait()
            if not rebase and ffmpeg.starts_late(str(text)):
                continue
            copying = asyncio.create_task(_copy(process.stdout, target, on_pcm), name="copy ffmpeg's sound")
            size = await _wait_for_copy(copying, text)
            status = await process.wait()
            await text.ended.wait()
            return status, str(text), size // BYTES_PER_SAMPLE
    raise AssertionError


async def _wait_for_copy(copying: asyncio.Task[int], text: _LogTail) -> int:
    flooded = asyncio.create_task(text.flooded.wait(), name="watch the size of ffmpeg's log")
    try:
        await asyncio.wait([copying, flooded], return_when=asyncio.FIRST_COMPLETED)
        if text.flooded.is_set():
            log.warning("ffmpeg's log is endless, ended", action="decode_flooded", ffmpeg=str(text)[-1000:])
            raise CorruptedFileError
        return copying.result()
    finally:
        for task in (copying, flooded):
            task.cancel()
        await asyncio.gather(copying, flooded, return_exceptions=True)


@contextlib.asynccontextmanager
async def _started(call: list[str], folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process, without our environment, descriptors or folder; killed at the end."""
    pipe = asyncio.subprocess.PIPE
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *call, stdin=nothing, stdout=pipe, stderr=pipe, limit=BLOCK, env={}, cwd=folder
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


class _LogTail:
    """The first and last part of a log that may be endless.

    described: the input's description is complete. flooded: more than LOG_FLOOD bytes came. ended: nothing follows.
    """

    def __init__(self) -> None:
        self.described, self.flooded, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._kept, self._size = b"", 0

    def __str__(self) -> str:
        return self._kept.decode(errors="replace")

    async def read(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(4096):
            self._size += len(data)
            self._kept += data
            if b"Stream mapping:" in self._kept or self._size > LOG_LIMIT:
                self.described.set()
            if len(self._kept) > LOG_LIMIT:
                self._kept = self._kept[: LOG_LIMIT // 4] + self._kept[-LOG_LIMIT // 2 :]
            if self._size > LOG_FLOOD:
                self.flooded.set()
        self.described.set()
        self.ended.set()


@contextlib.asynccontextmanager
async def _reading(process: asyncio.subprocess.Process) -> AsyncIterator[_LogTail]:
    assert process.stderr is not None
    text = _LogTail()
    reading = asyncio.create_task(text.read(process.stderr), name="read ffmpeg's log")
    try:
        yield text
    finally:
        reading.cancel()


async def _copy(stream: asyncio.StreamReader, target: Path, on_pcm: Callable[[bytes], None]) -> int:
    """Write whole samples to the file; returns how many bytes."""
    size, rest = 0, b""
    with await asyncio.to_thread(target.open, "wb") as file:

        def keep(block: bytes) -> None:
            file.write(block)
            on_pcm(block)

        while data := await stream.read(BLOCK):
            data = rest + data
            whole = len(data) - len(data) % BYTES_PER_SAMPLE
            rest = data[whole:]
            await asyncio.to_thread(keep, data[:whole])
            size += whole
        await asyncio.to_thread(file.flush)
    return size
