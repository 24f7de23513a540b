"""Checksums of the samples of each chunk, which verify later reads of its byte ranges."""

from __future__ import annotations

import errno
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from core.domain.spans import BYTES_PER_SAMPLE, PlannedChunk


def chunk_checksums(pcm: Path, samples: int, chunks: Sequence[PlannedChunk], first: int = 0) -> tuple[int, ...]:
    """Return the CRC-32 of each chunk's concatenated spans.

    pcm: working audio from sample `first` of the recording on. Raises OSError (EIO) unless the file has exactly
    `samples` samples.
    """
    if pcm.stat().st_size != samples * BYTES_PER_SAMPLE:
        raise OSError(errno.EIO, "the decoded file differs in length from what was written")
    with pcm.open("rb") as file:
        return tuple(_checksum(file, chunk, first) for chunk in chunks)


def _checksum(file: BinaryIO, chunk: PlannedChunk, first: int) -> int:
    crc = 0
    for span in chunk.spans:
        file.seek((span.first - first) * BYTES_PER_SAMPLE)
        data = file.read(span.samples * BYTES_PER_SAMPLE)
        if len(data) != span.samples * BYTES_PER_SAMPLE:
            raise OSError(errno.EIO, "the decoded file is shorter than its plan")
        crc = zlib.crc32(data, crc)
    return crc
