"""Events of a job as they happen: finished segments in order of the recording, progress, the end of the job.

The number of a chunk is the greatest event number among the chunks that must finish before its segments are final: the
chunk itself, those before it and, if it overlaps, the one after. Numbers never fall along the recording, so a reader
that has received number n needs exactly the chunks with a greater number.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from itertools import takewhile

from core.database import Database
from core.domain.job import JobStatus
from core.domain.result import ResultSegment
from core.domain.transcript import ChunkTranscript
from internal.services.job_watcher import JobWatcher
from repositories import jobs
from repositories.models import Job
from worker.result import merged_segments

KEEP_ALIVE_SECONDS = 15.0
"""Seconds without an event after which a keep-alive is sent."""
KEEP_ALIVE = "keep-alive"
FINAL = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An event of a job. kind: segment, progress, completed, failed, cancelled or keep-alive.

    number: new event number of the reader; None: unchanged.
    """

    kind: str
    number: int | None = None
    job: Job | None = None
    segment: ResultSegment | None = None


@dataclass(slots=True)
class _ReaderState:
    """The last number sent, and the transcripts loaded so far, by chunk."""

    number: int
    transcripts: dict[int, ChunkTranscript] = field(default_factory=dict)


Mark = tuple[int, int, float, bool]
"""State of a chunk: index, event number, overlap with the chunk before it in seconds, finished."""


@dataclass(frozen=True, slots=True)
class JobEvents:
    """Events of jobs, for any number of readers."""

    database: Database
    watcher: JobWatcher

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[JobEvent]:
        """Yield the events after number `after` until the job has ended. A deleted job counts as cancelled."""
        state, seen = _ReaderState(after), -1
        async with self.watcher.watch(job_id) as watch:
            while True:
                if not await watch.wait_for_change(seen, KEEP_ALIVE_SECONDS):
                    yield JobEvent(KEEP_ALIVE)
                    continue
                async with self.database.read() as session:
                    job = await jobs.get(session, job_id)
                    marks = await jobs.list_chunk_progress(session, job_id) if job else []
                if job is None:
                    yield JobEvent("cancelled")
                    return
                seen = max(watch.seq, job.event_seq)
                for event in await self._new_segments(job, marks, state):
                    yield event
                # a chunk that was committed between the two reads has a greater number than the job that was read
                number = max(job.event_seq, state.number)
                if job.status in FINAL:
                    yield JobEvent(FINAL[JobStatus(job.status)], number, job)
                    return
                yield JobEvent("progress", number, job)

    async def _new_segments(self, job: Job, marks: list[Mark], state: _ReaderState) -> list[JobEvent]:
        """Return the segments of chunks that have become final since the last call."""
        numbers = chunk_numbers(marks)
        new = [index for index, number in numbers.items() if number > state.number]
        if not new:
            return []
        if missing := set(numbers) - set(state.transcripts):
            async with self.database.read() as session:
                for chunk in await jobs.list_transcripts(session, job.job_id, missing):
                    state.transcripts[chunk.index] = chunk
        chunks = [state.transcripts[index] for index in sorted(state.transcripts)]
        merged = await asyncio.to_thread(merged_segments, chunks, job.options.merge_method)
        state.number = max(numbers.values())
        return [event for index in new for event in _segment_events(index, merged, numbers)]


def _segment_events(index: int, merged: list[ResultSegment], numbers: dict[int, int]) -> list[JobEvent]:
    """Return the events of a chunk's segments.

    A number is sent with the last segment of the last chunk that has it, so that its reader has missed no segment.
    """
    segments = [segment for segment in merged if segment.chunk == index]
    is_last_chunk = numbers.get(index + 1) != numbers[index]
    return [
        JobEvent("segment", numbers[index] if is_last_chunk and position == len(segments) else None, segment=segment)
        for position, segment in enumerate(segments, 1)
    ]


def chunk_numbers(marks: list[Mark]) -> dict[int, int]:
    """Return the numbers of the final chunks: those before them are finished, and so is the next if it overlaps."""
    numbers: dict[int, int] = {}
    greatest = 0
    finished = list(takewhile(lambda mark: mark[3], marks))
    for position, (index, seq, _, _) in enumerate(finished):
        greatest = max(greatest, seq)
        following = marks[position + 1] if position + 1 < len(marks) else None
        if following is not None and following[2] > 0:
            if not following[3]:
                break
            greatest = max(greatest, following[1])
        numbers[index] = greatest
    return numbers
