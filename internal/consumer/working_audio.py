"""Reader of a chunk's samples, verified against the checksums that Prepare stored."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE, Span
from core.errors import ObjectDamagedError, ObjectNotFound, ShortRead
from core.storage.port import Storage
from internal.outage_retry import OutageRetry
from repositories.claims import ClaimedChunk

log = structlog.get_logger(__name__)
MAX_GAP = 5 * SAMPLE_RATE
"""Maximum samples between two spans read in one range: reading unused bytes is cheaper than a round trip."""
REREAD_DELAY = 1.0
"""Seconds before a read that differs from the plan is repeated: a proxy or cache may be at fault."""


@dataclass(frozen=True, slots=True)
class WorkingAudioReader:
    """Reader of working audio."""

    storage: Storage
    outage_retry: OutageRetry

    async def read_chunk(self, claimed: ClaimedChunk) -> bytes:
        """Return the chunk's spans, concatenated: 16 kHz, mono, s16le. A read that differs is repeated once.

        Raises ObjectDamagedError if the object is missing, too short or differs from the plan; StorageUnavailable.
        """
        key = claimed.audio_path
        if key is None:
            raise ObjectDamagedError("The prepared audio is no longer in storage. Retry the job to prepare it again.")
        result = await self._read_verified(claimed, key)
        if isinstance(result, str):
            log.warning("working audio differs from its plan, reading again", action="audio_reread", reason=result)
            await asyncio.sleep(REREAD_DELAY)
            result = await self._read_verified(claimed, key)
        if isinstance(result, bytes):
            return result
        stored = await self.outage_retry.run(partial(self.storage.stat, key))
        log.error(
            "working audio is damaged",
            action="audio_damaged",
            reason=result,
            key=key,
            bytes_planned=claimed.job.working_audio_bytes if key == claimed.job.working_audio_path else None,
            bytes_found=stored.size if stored else None,
        )
        raise ObjectDamagedError(
            "The prepared audio was damaged in storage. Retry the job to prepare it again."
            if stored
            else "The prepared audio is no longer in storage. Retry the job to prepare it again."
        )

    async def _read_verified(self, claimed: ClaimedChunk, key: str) -> bytes | str:
        """Return the chunk's bytes, or as a text the difference from the plan."""
        spans = [Span(span.first - claimed.audio_start, span.last - claimed.audio_start) for span in claimed.spans]
        try:
            pcm = b"".join([piece for group in grouped(spans) for piece in await self._read_group(key, group)])
        except ShortRead:
            return "shorter than planned"
        except ObjectNotFound:
            return "missing"
        if claimed.crc32 is not None and zlib.crc32(pcm) != claimed.crc32:
            return "checksum differs from the plan"
        return pcm

    async def _read_group(self, key: str, group: list[Span]) -> list[bytes]:
        """Read a group of spans in one range; return the bytes of each span."""
        first, last = group[0].first * BYTES_PER_SAMPLE, group[-1].last * BYTES_PER_SAMPLE
        data = await self.outage_retry.run(partial(self.storage.get_bytes, key, first, last - first))
        return [data[span.first * BYTES_PER_SAMPLE - first : span.last * BYTES_PER_SAMPLE - first] for span in group]


def grouped(spans: Sequence[Span]) -> list[list[Span]]:
    """Group spans that are close enough to be read in one range."""
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span.first - groups[-1][-1].last <= MAX_GAP:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
