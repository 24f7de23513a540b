"""The transcript of a running job, merged once per commit for all readers of this process.

The number of a chunk is the greatest event number among the chunks that must finish before its segments are final: the
chunk itself, those before it and, if it overlaps, the one after. Numbers never fall along the recording, so a reader
that has received number n needs exactly the chunks with a greater number.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from core.database import Database
from core.domain.result import ResultSegment
from core.domain.transcript import ChunkTranscript
from repositories import jobs
from repositories.models import Job
from worker.result import RunningSegments

Mark = tuple[int, int, float, bool]
"""State of a chunk: index, event number, overlap with the chunk before it in seconds, finished."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """An event of a job. kind: segment, progress, completed, failed, cancelled or keep-alive.

    number: new event number of the reader; None: unchanged. encoded: its bytes by language, which readers share.
    """

    kind: str
    number: int | None = None
    job: Job | None = None
    segment: ResultSegment | None = None
    encoded: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)


@dataclass(slots=True)
class _Plan:
    """State of one plan's chunks. numbers, events: of the final chunks, in order of the recording."""

    number: int | None
    segments: RunningSegments
    marks: dict[int, Mark] = field(default_factory=dict)
    greatest: int = -1
    numbers: list[int] = field(default_factory=list)
    events: list[tuple[JobEvent, ...]] = field(default_factory=list)


class JobFeed:
    """The events of one job so far. `job` is None if it is deleted or unknown."""

    def __init__(self, database: Database, job_id: str) -> None:
        self._database, self._job_id = database, job_id
        self._update: asyncio.Task[None] | None = None
        self._plan: _Plan | None = None
        self._progress: dict[tuple[str, int], JobEvent] = {}
        self.job: Job | None = None
        self.seq = -1
        self.readers = 0

    @property
    def number(self) -> int:
        """The greatest number of a final chunk, or 0."""
        return self._plan.numbers[-1] if self._plan and self._plan.numbers else 0

    async def update(self, seq: int) -> None:
        """Read what was committed until event number `seq`, once for all readers. Raises DatabaseUnavailable."""
        while self.seq < seq:
            if self._update is None or self._update.done():
                self._update = asyncio.create_task(self._read(seq), name="update a job's events")
            # a reader that leaves must not interrupt the update of the others
            await asyncio.shield(self._update)

    async def _read(self, seq: int) -> None:
        try:
            async with self._database.read() as session:
                job = await jobs.get(session, self._job_id)
                plan = self._plan = self._plan_of(job)
                if plan is not None:
                    for mark in await jobs.list_chunk_progress(session, self._job_id, plan.greatest, len(plan.marks)):
                        plan.marks[mark[0]] = mark
                        plan.greatest = max(plan.greatest, mark[1])
            if plan is not None:
                await self._add_final_chunks(plan)
        except BaseException:
            self._plan = None  # it may be half updated
            raise
        self.job, self._progress = job, {}
        self.seq = max(seq, job.event_seq) if job else seq

    def _plan_of(self, job: Job | None) -> _Plan | None:
        """Return the known chunks of the job's plan; none of them if the plan was replaced."""
        if job is None:
            return None
        if self._plan is not None and self._plan.number == job.plan:
            return self._plan
        return _Plan(job.plan, RunningSegments(job.options.merge_method))

    async def _add_final_chunks(self, plan: _Plan) -> None:
        first = len(plan.numbers)
        numbers = chunk_numbers(plan.marks, first, plan.numbers[-1] if plan.numbers else 0)
        if not numbers:
            return
        wanted = [*numbers, max(numbers) + 1]
        async with self._database.read() as session:
            loaded = {chunk.index: chunk for chunk in await jobs.list_transcripts(session, self._job_id, wanted)}
        if set(numbers) - set(loaded):
            return  # the plan was replaced between the two reads, which the next update sees
        plan.events += await asyncio.to_thread(_merge, plan.segments, numbers, loaded)
        plan.numbers += numbers.values()

    def events_after(self, number: int) -> list[JobEvent]:
        """Return the segments of the final chunks with a greater number."""
        if self._plan is None:
            return []
        new = self._plan.events[bisect_right(self._plan.numbers, number) :]
        return [event for events in new for event in events]

    def state(self, kind: str, number: int) -> JobEvent:
        """Return the event of the job's state, the same one for all readers."""
        return self._progress.setdefault((kind, number), JobEvent(kind, number, self.job))


def _merge(
    segments: RunningSegments, numbers: Mapping[int, int], chunks: Mapping[int, ChunkTranscript]
) -> list[tuple[JobEvent, ...]]:
    merged = {index: segments.extend(chunks[index], chunks.get(index + 1)) for index in numbers}
    return [tuple(_segment_events(index, merged[index], numbers)) for index in numbers]


def _segment_events(index: int, segments: tuple[ResultSegment, ...], numbers: Mapping[int, int]) -> list[JobEvent]:
    """Return the events of a chunk's segments.

    A number is sent with the last segment of the last chunk that has it, so that its reader has missed no segment.
    """
    is_last_chunk = numbers.get(index + 1) != numbers[index]
    return [
        JobEvent("segment", numbers[index] if is_last_chunk and position == len(segments) else None, segment=segment)
        for position, segment in enumerate(segments, 1)
    ]


def chunk_numbers(marks: Mapping[int, Mark], first: int = 0, greatest: int = 0) -> dict[int, int]:
    """Return the numbers of the final chunks: those before them are finished, and so is the next if it overlaps.

    first: index of the first chunk that was not final so far; greatest: number of the one before it.
    """
    numbers: dict[int, int] = {}
    index = first
    while (mark := marks.get(index)) is not None and mark[3]:
        greatest = max(greatest, mark[1])
        following = marks.get(index + 1)
        if following is not None and following[2] > 0:
            if not following[3]:
                break
            greatest = max(greatest, following[1])
        numbers[index] = greatest
        index += 1
    return numbers
