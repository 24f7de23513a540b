"""What happens to a job, as it happens: its segments in order of the recording, its progress, its end.

A chunk's number is the greatest event number among all that must be finished before its segments can be told: the
chunks before it and, where they overlap, the one after. Numbers never fall along the recording, so whoever has seen
number n is owed exactly the chunks with a greater one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from itertools import takewhile

from core.domain.job import JobStatus
from core.domain.result import ResultSegment
from core.domain.transcript import ChunkTranscript
from internal.bootstrap import Application
from internal.services.job_watcher import Watcher
from repositories import jobs
from repositories.models import Job
from worker.result import merged_segments

QUIET = 15.0
"""Seconds without a word after which the line is shown to be alive."""
FINAL = {
    JobStatus.COMPLETED: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class Event:
    """number None: the reader's last number stays. kind: segment, progress, completed, failed, cancelled, quiet."""

    kind: str
    number: int | None = None
    job: Job | None = None
    segment: ResultSegment | None = None


@dataclass(slots=True)
class _Told:
    """What one reader has been told."""

    number: int
    transcripts: dict[int, ChunkTranscript] = field(default_factory=dict)


async def follow(parts: Application, watcher: Watcher, job_id: str, last: int) -> AsyncGenerator[Event]:
    """Everything after number `last`, until the job has ended."""
    told, seen = _Told(last), -1
    async with watcher.watch(job_id) as watch:
        while True:
            if not await watch.past(seen, QUIET):
                yield Event("quiet")
                continue
            async with parts.database.read() as session:
                job = await jobs.get(session, job_id)
                marks = await jobs.list_chunk_progress(session, job_id) if job else []
            if job is None:
                yield Event("cancelled")
                return
            seen = max(watch.seq, job.event_seq)
            for event in await _news(parts, job, marks, told):
                yield event
            if job.status in FINAL:
                yield Event(FINAL[JobStatus(job.status)], job.event_seq, job)
                return
            yield Event("progress", job.event_seq, job)


Mark = tuple[int, int, float, bool]


async def _news(parts: Application, job: Job, marks: list[Mark], told: _Told) -> list[Event]:
    """The segments of chunks that can be told now and have not been."""
    numbers = chunk_numbers(marks)
    new = [index for index, number in numbers.items() if number > told.number]
    if not new:
        return []
    if missing := set(numbers) - set(told.transcripts):
        async with parts.database.read() as session:
            for chunk in await jobs.list_transcripts(session, job.job_id, missing):
                told.transcripts[chunk.index] = chunk
    known = [told.transcripts[index] for index in sorted(told.transcripts)]
    merged = await asyncio.to_thread(merged_segments, known, job.options.merge_method)
    told.number = max(numbers.values())
    return [event for index in new for event in _of_chunk(index, merged, numbers)]


def _of_chunk(index: int, merged: list[ResultSegment], numbers: dict[int, int]) -> list[Event]:
    """A number is given with the last segment of the last chunk that has it: nobody who saw it misses one."""
    mine = [segment for segment in merged if segment.chunk == index]
    last = numbers.get(index + 1) != numbers[index]
    return [
        Event("segment", numbers[index] if last and place == len(mine) else None, segment=segment)
        for place, segment in enumerate(mine, 1)
    ]


def chunk_numbers(marks: list[Mark]) -> dict[int, int]:
    """The numbers of the chunks that can be told: all before them finished, and the next where it overlaps."""
    numbers: dict[int, int] = {}
    greatest = 0
    finished = list(takewhile(lambda mark: mark[3], marks))
    for place, (index, seq, _, _) in enumerate(finished):
        greatest = max(greatest, seq)
        following = marks[place + 1] if place + 1 < len(marks) else None
        if following is not None and following[2] > 0:
            if not following[3]:
                break
            greatest = max(greatest, following[1])
        numbers[index] = greatest
    return numbers
