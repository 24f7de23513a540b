"""Transcribe: read one chunk's bytes of the working audio, hear it in a pool slot, commit it once, release the next."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from core.config import MAX_CHUNK_DEADLINE
from core.domain.job import AUTO
from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE, Span, to_recording_time
from core.domain.transcript import Segment, Word
from core.errors import ChunkTimeoutError, ModelMissingError, OutOfMemoryError
from core.messaging.port import Ack, Delivery, Message, Verdict
from internal.consumer import model_choice
from internal.consumer.context import Context
from internal.consumer.working_audio import read_chunk
from internal.services import publishing
from repositories import claims, commits
from repositories.claims import ClaimedChunk
from repositories.commits import ChunkOutcome
from worker.oom_retry import transcribe_with_less_memory
from worker.pool import Slot
from worker.transcriber import EngineOutput, Options

log = structlog.get_logger(__name__)
FEWER_SLOTS = 600.0
"""Seconds the pool works with one slot fewer after it ran out of memory."""
STEP_MARGIN = 60.0
"""Seconds of a chunk's step beside the engine, whose own deadline is for each half where it works in halves."""


@dataclass(slots=True)
class TranscribeHandler:
    """Takes a pool slot first, then claims. A second delivery of a running chunk waits for that same run."""

    context: Context
    _running: dict[tuple[str, int], asyncio.Task[Verdict]] = field(default_factory=dict)

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message
        key = (message.job_id, message.chunk_index or 0)
        running = self._running.get(key)
        if running is not None:
            await asyncio.wait([running])
            return Ack()
        task = asyncio.create_task(self._take(delivery), name=f"transcribe {key[0]}/{key[1]}")
        self._running[key] = task
        try:
            return await task
        finally:
            del self._running[key]

    async def _take(self, delivery: Delivery) -> Verdict:
        message = delivery.message
        async with self.context.pool.slot() as slot:

            async def run(claimed: ClaimedChunk) -> Verdict:
                return await self.context.settled(claimed.claim, message, lambda: self._run(slot, claimed, message))

            return await self.context.take(
                delivery,
                2 * self._deadline(message.failures) + STEP_MARGIN,
                lambda session, request: claims.claim_chunk(
                    session, message.job_id, message.chunk_index or 0, message.failures, request
                ),
                run,
            )

    def _deadline(self, failures: int) -> float:
        """Seconds: a retry gets twice the time of the attempt before it, up to 15 min."""
        return min(self.context.parts.settings.chunk_timeout_seconds * float(2**failures), MAX_CHUNK_DEADLINE)

    async def _run(self, slot: Slot, claimed: ClaimedChunk, message: Message) -> None:
        started = time.monotonic()
        if await model_choice.pinned(self.context, claimed.job) is None:
            await model_choice.hand_back(self.context, claimed.claim, claimed.job)
            return
        pcm = await read_chunk(self.context, claimed)
        heard = await self._hear(slot, claimed, pcm)
        if heard is None:
            await model_choice.hand_back(self.context, claimed.claim, claimed.job)
            return
        outcome = ChunkOutcome(
            segments=[segment.to_json() for segment in map_times(heard, claimed.spans)],
            seconds=time.monotonic() - started,
            language=heard.language,
            metrics={
                "chunk_seconds": time.monotonic() - started,
                "chunk_cpu_seconds": heard.cpu_seconds,
                "chunk_encodes": float(heard.encodes),
                "chunk_audio_seconds": len(pcm) / BYTES_PER_SAMPLE / SAMPLE_RATE,
            },
        )
        await self._commit(claimed, outcome)

    async def _hear(self, slot: Slot, claimed: ClaimedChunk, pcm: bytes) -> EngineOutput | None:
        """None: the model file was replaced or removed before the engine had loaded it, or while it ran."""
        model = await model_choice.pinned(self.context, claimed.job)
        if model is None:
            return None
        try:
            heard = await self._call(slot, claimed, pcm, model)
        except ModelMissingError:
            if await model_choice.pinned(self.context, claimed.job) is None:
                return None
            raise
        return heard if await model_choice.pinned(self.context, claimed.job) == model else None

    async def _call(self, slot: Slot, claimed: ClaimedChunk, pcm: bytes, model: Path) -> EngineOutput:
        job, settings = claimed.job, self.context.parts.settings
        options = Options(
            language=(job.detected_language or AUTO) if job.language == AUTO else job.language,
            languages=settings.languages,
            job=job.options,
        )
        deadline = self._deadline(claimed.claim.failures)
        try:
            if claimed.last_error == OutOfMemoryError.code:
                return await transcribe_with_less_memory(slot, model, pcm, options, deadline)
            return await slot.transcribe(model, pcm, options, deadline)
        except OutOfMemoryError:
            self.context.pool.reduce_slots(FEWER_SLOTS)
            raise
        except ChunkTimeoutError:
            log.warning("chunk took too long", action="chunk_timeout", deadline=deadline)
            raise

    async def _commit(self, claimed: ClaimedChunk, outcome: ChunkOutcome) -> None:
        job = claimed.job
        pin = job.language == AUTO and job.detected_language is None
        done = await self.context.transaction(
            lambda session, _: commits.commit_chunk(session, claimed, outcome, pin_language=pin)
        )
        if done is None:
            log.info("chunk was finished by somebody else", action="chunk_duplicate")
            return
        log.info(
            "chunk finished",
            action="chunk_completed",
            seconds=round(outcome.seconds, 3),
            done=done.chunks_completed,
            of=done.chunks_total,
        )
        await self.context.parts.publisher.publish([publishing.message_for(job, row) for row in done.wake_ups])


def map_times(heard: EngineOutput, spans: tuple[Span, ...]) -> list[Segment]:
    """The chunk's segments in recording time."""

    def at(seconds: float) -> float:
        return round(to_recording_time(spans, seconds), 3)

    def word(one: Word) -> Word:
        return replace(one, start=at(one.start), end=at(one.end))

    return [
        replace(segment, start=at(segment.start), end=at(segment.end), words=tuple(word(one) for one in segment.words))
        for segment in heard.segments
    ]
