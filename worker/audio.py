"""Decode a recording to working audio: ffmpeg's PCM over a pipe, so that it dies with its consumer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE
from core.errors import AudioTooLongError, ChunkTimeoutError, DiskFullError
from worker import ffmpeg

log = structlog.get_logger(__name__)
BLOCK = 1024 * 1024
LOG_LIMIT = 64 * 1024


async def decode(
    source: Path, target: Path, *, max_duration: float, deadline: float, on_pcm: Callable[[bytes], None]
) -> int:
    """Write `source` to `target` as 16 kHz mono s16le; every block also goes to `on_pcm` (in a thread).

    max_duration and deadline in seconds. Returns the number of samples. Raises InvalidAudioFormatError,
    CorruptedFileError, AudioTooLongError, ChunkTimeoutError, DiskFullError. No process is left behind.
    """
    call = ffmpeg.command(source, limit=max_duration + 1, cpu_seconds=deadline)
    try:
        async with asyncio.timeout(deadline):
            status, text, samples = await _run(call, target, on_pcm)
    except TimeoutError as error:
        raise ChunkTimeoutError from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError from error
        raise
    if samples > max_duration * SAMPLE_RATE:
        raise AudioTooLongError(
            "The recording is longer than {limit} seconds. Cut it into shorter ones.", limit=round(max_duration)
        )
    problem = ffmpeg.complaint(status, text, samples)
    if problem is not None:
        log.info("ffmpeg refused", action="decode_failed", status=status, ffmpeg=text[-1000:])
        raise problem
    return samples


async def _run(call: list[str], target: Path, on_pcm: Callable[[bytes], None]) -> tuple[int, str, int]:
    async with _started(call) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        reading = asyncio.create_task(_bounded(process.stderr), name="read ffmpeg's log")
        try:
            size = await _copy(process.stdout, target, on_pcm)
            status = await process.wait()
            return status, (await reading).decode(errors="replace"), size // BYTES_PER_SAMPLE
        finally:
            reading.cancel()


@contextlib.asynccontextmanager
async def _started(call: list[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*call, stdin=nothing, stdout=pipe, stderr=pipe, limit=BLOCK)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


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


async def _bounded(stream: asyncio.StreamReader) -> bytes:
    """The first and last part of a log that may be endless."""
    kept = b""
    while data := await stream.read(4096):
        kept += data
        if len(kept) > LOG_LIMIT:
            kept = kept[: LOG_LIMIT // 4] + kept[-LOG_LIMIT // 2 :]
    return kept
