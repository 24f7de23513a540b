"""Transcribe: read a chunk's audio, run the engine in a pool slot, commit the chunk once, release the next one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from core.config import MAX_CHUNK_DEADLINE
from core.domain.job import AUTO, Priority
from core.domain.spans import BYTES_PER_SAMPLE, SAMPLE_RATE, Span, to_recording_time
from core.domain.transcript import Segment, Word
from core.errors import ChunkTimeoutError, ModelFileError, ModelMissingError, OutOfMemoryError
from core.messaging.port import Ack, Delivery, Verdict
from internal.consumer.model_selector import ModelSelector
from internal.consumer.retrying_database import RetryingDatabase
from internal.consumer.step_runner import StepRunner
from internal.consumer.working_audio import WorkingAudioReader
from internal.services import publishing
from internal.services.publishing import Publisher
from internal.step_timer import paused
from repositories import claims, commits
from repositories.claims import ClaimedChunk, ClaimRequest
from repositories.commits import ChunkOutcome
from worker.batch import Mode
from worker.pool import Pool, Slot
from worker.transcriber import EngineOutput, Options

log = structlog.get_logger(__name__)
REDUCED_SECONDS = 600.0
"""Seconds that the pool runs with one slot fewer after running out of memory."""
STEP_MARGIN = 60.0
"""Seconds of a chunk's step besides the engine."""
FIRST_RUNS, RETRY_RUNS = 3, 2
"""Engine deadlines in a chunk's step: a first attempt may run in a batch, of up to two, and then alone; a retry may run
in two halves."""


@dataclass(frozen=True, slots=True)
class TranscribeHandler:
    """Handler of Transcribe messages: acquires a pool slot, then claims the chunk.

    A second delivery of a chunk that is already running here waits for that run. chunk_timeout: engine seconds of a
    first attempt.
    """

    steps: StepRunner
    database: RetryingDatabase
    pool: Pool
    models: ModelSelector
    working_audio: WorkingAudioReader
    publisher: Publisher
    languages: tuple[str, ...]
    chunk_timeout: float
    _running: dict[tuple[str, int], asyncio.Task[Verdict]] = field(default_factory=dict, init=False)

    async def __call__(self, delivery: Delivery) -> Verdict:
        message = delivery.message
        key = (message.job_id, message.chunk_index or 0)
        running = self._running.get(key)
        if running is not None:
            await asyncio.wait([running])
            return Ack()
        task = asyncio.create_task(self._claim_and_run(delivery), name=f"transcribe {key[0]}/{key[1]}")
        self._running[key] = task
        try:
            return await task
        finally:
            del self._running[key]

    async def _claim_and_run(self, delivery: Delivery) -> Verdict:
        message = delivery.message

        async def claim(session: AsyncSession, request: ClaimRequest) -> ClaimedChunk | None:
            return await claims.claim_chunk(
                session, message.job_id, message.chunk_index or 0, message.failures, request
            )

        async with self.pool.slot() as slot:
            runs = RETRY_RUNS if message.failures else FIRST_RUNS
            deadline = runs * self._engine_deadline(message.failures) + STEP_MARGIN
            verdict, _ = await self.steps.run(
                delivery, deadline, claim, lambda claimed: self._transcribe(slot, claimed)
            )
            return verdict

    def _engine_deadline(self, failures: int) -> float:
        """Return the engine's deadline in seconds: doubled at each retry, up to 15 min."""
        return min(self.chunk_timeout * float(2**failures), MAX_CHUNK_DEADLINE)

    async def _transcribe(self, slot: Slot, claimed: ClaimedChunk) -> None:
        started = time.monotonic()
        if await self.models.find_pinned(claimed.job) is None:
            await self.models.hand_back(claimed.claim, claimed.job)
            return
        pcm = await self.working_audio.read_chunk(claimed)
        output = await self._run_pinned(slot, claimed, pcm)
        if output is None:
            await self.models.hand_back(claimed.claim, claimed.job)
            return
        outcome = ChunkOutcome(
            segments=[segment.to_json() for segment in map_times(output, claimed.spans)],
            seconds=time.monotonic() - started,
            language=output.language,
            metrics={
                "chunk_seconds": time.monotonic() - started,
                "chunk_cpu_seconds": output.cpu_seconds,
                "chunk_encodes": float(output.encodes),
                "chunk_audio_seconds": len(pcm) / BYTES_PER_SAMPLE / SAMPLE_RATE,
            },
            engine=output.engine,
        )
        await self._commit(claimed, outcome)

    async def _run_pinned(self, slot: Slot, claimed: ClaimedChunk, pcm: bytes) -> EngineOutput | None:
        """Run the engine with the pinned model; return None if the file was replaced or removed meanwhile."""
        model = await self.models.find_pinned(claimed.job)
        if model is None:
            return None
        try:
            output = await self._run_engine(slot, claimed, pcm, model)
        except (ModelMissingError, ModelFileError):
            if await self.models.find_pinned(claimed.job) is None:
                return None
            raise
        return output if await self.models.find_pinned(claimed.job) == model else None

    async def _run_engine(self, slot: Slot, claimed: ClaimedChunk, pcm: bytes, model: Path) -> EngineOutput:
        job = claimed.job
        language = (job.detected_language or AUTO) if job.language == AUTO else job.language
        options = Options(language, self.languages, job.options)
        deadline = self._engine_deadline(claimed.claim.failures)
        try:
            return await slot.transcribe(
                model, pcm, options, deadline, mode=mode(claimed), level=Priority(job.priority).level, waiting=paused
            )
        except OutOfMemoryError:
            self.pool.reduce_slots(REDUCED_SECONDS)
            raise
        except ChunkTimeoutError:
            log.warning("chunk timed out", action="chunk_timeout", deadline=deadline)
            raise

    async def _commit(self, claimed: ClaimedChunk, outcome: ChunkOutcome) -> None:
        job = claimed.job
        pin_language = job.language == AUTO and job.detected_language is None
        committed = await self.database.write(
            lambda session: commits.commit_chunk(session, claimed, outcome, pin_language=pin_language)
        )
        if committed is None:
            log.info("chunk was already committed", action="chunk_duplicate")
            return
        log.info(
            "chunk finished",
            action="chunk_completed",
            seconds=round(outcome.seconds, 3),
            done=committed.chunks_completed,
            of=committed.chunks_total,
        )
        await self.publisher.publish([publishing.message_for(job, row) for row in committed.wake_ups])


def mode(claimed: ClaimedChunk) -> Mode:
    """Return the way to run a chunk. A repeated one runs alone, since it may be what ended its engine or consumer."""
    if claimed.last_error == OutOfMemoryError.code:
        return Mode.LESS_MEMORY
    return Mode.ALONE if claimed.claim.failures or claimed.claim.lost else Mode.BATCH


def map_times(output: EngineOutput, spans: tuple[Span, ...]) -> list[Segment]:
    """Return the segments with times in the recording instead of times in the chunk, in seconds."""

    def recording_time(seconds: float) -> float:
        return round(to_recording_time(spans, seconds), 3)

    def mapped(word: Word) -> Word:
        return replace(word, start=recording_time(word.start), end=recording_time(word.end))

    return [
        replace(
            segment,
            start=recording_time(segment.start),
            end=recording_time(segment.end),
            words=tuple(map(mapped, segment.words)),
        )
        for segment in output.segments
    ]
