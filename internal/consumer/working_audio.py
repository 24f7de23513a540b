"""A chunk's samples out of the working audio, verified against what Prepare stored."""

from __future__ import annotations

import asyncio
import zlib
from functools import partial

import structlog

from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE, Span
from core.errors import ObjectDamagedError, ObjectNotFound, ShortRead
from internal.consumer.context import Context
from repositories.claims import ClaimedChunk

log = structlog.get_logger(__name__)
JOIN_GAP = 5 * SAMPLE_RATE
"""Spans closer than this are fetched in one range: a few dropped bytes cost less than a round trip."""
RECHECK = 1.0
"""Seconds between a read that differs from the plan and the second one: a proxy or cache may have been at fault."""


async def read_chunk(context: Context, claimed: ClaimedChunk) -> bytes:
    """The chunk's spans laid end to end, 16 kHz mono s16le. A read that differs from the plan is repeated once.

    Raises ObjectDamagedError where the object is gone, shorter or other than planned; StorageUnavailable.
    """
    key = claimed.job.working_audio_path
    if key is None:
        raise ObjectDamagedError("The prepared audio is no longer in storage. Retry the job to prepare it again.")
    found = await _verified(context, claimed, key)
    if isinstance(found, str):
        log.warning("working audio differs from its plan, reading again", action="audio_reread", reason=found)
        await asyncio.sleep(RECHECK)
        found = await _verified(context, claimed, key)
    if isinstance(found, bytes):
        return found
    state = await context.outage_retry.run(partial(context.parts.storage.stat, key))
    log.error(
        "working audio is damaged",
        action="audio_damaged",
        reason=found,
        key=key,
        bytes_planned=claimed.job.working_audio_bytes,
        bytes_found=state.size if state else None,
    )
    raise ObjectDamagedError(
        "The prepared audio was damaged in storage. Retry the job to prepare it again."
        if state
        else "The prepared audio is no longer in storage. Retry the job to prepare it again."
    )


async def _verified(context: Context, claimed: ClaimedChunk, key: str) -> bytes | str:
    """The chunk's bytes, or the reason why they are not those of the plan."""
    try:
        pcm = b"".join([piece for group in joined(claimed.spans) for piece in await _read(context, key, group)])
    except ShortRead:
        return "shorter than planned"
    except ObjectNotFound:
        return "gone"
    if claimed.crc32 is not None and zlib.crc32(pcm) != claimed.crc32:
        return "another checksum than planned"
    return pcm


async def _read(context: Context, key: str, group: list[Span]) -> list[bytes]:
    """The bytes of each span of a group, read in one range."""
    first, last = group[0].first * BYTES_PER_SAMPLE, group[-1].last * BYTES_PER_SAMPLE
    data = await context.outage_retry.run(partial(context.parts.storage.get_bytes, key, first, last - first))
    return [data[span.first * BYTES_PER_SAMPLE - first : span.last * BYTES_PER_SAMPLE - first] for span in group]


def joined(spans: tuple[Span, ...]) -> list[list[Span]]:
    """Group spans that are near enough to fetch together."""
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span.first - groups[-1][-1].last <= JOIN_GAP:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups
