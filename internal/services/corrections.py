"""Corrections of transcripts by people.

A correction belongs to a segment of a COMPLETED job. Such a job is never run again and its result is written once, so
the numbers of its segments are final. The machine's text is stored with the correction all the same: a correction of
another text is not shown.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog

from core.database import Database
from core.domain.corrections import MAX_TEXT, Correction, cleaned_text, corrected
from core.domain.result import ResultSegment, segment_to_json
from core.errors import InvalidFieldError
from core.errors_media import (
    CorrectionConflictError,
    PreconditionRequiredError,
    SegmentNotFoundError,
    TooManyCorrectionsError,
)
from internal.services.job_watcher import JobWatcher
from internal.services.jobs import job_not_found
from internal.services.results import Results
from repositories import corrections, jobs
from repositories.models import Job

log = structlog.get_logger(__name__)
MAX_CORRECTIONS = 10_000
"""Segments of one job that may be corrected: more than a day of speech has."""
MAX_CONDITION = 1000
"""Characters of If-Match that are read."""
KEEP_ALIVE_SECONDS = 15.0
"""Seconds without a change after which a keep-alive is sent."""
_TAG = re.compile(r'"([0-9]{1,9})"')


@dataclass(frozen=True, slots=True)
class CorrectionEvent:
    """A change, the end of the job (`deleted`), or neither of them: a keep-alive."""

    correction: Correction | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Corrections:
    """Changes of segments, and their announcement to those who have the transcript open."""

    database: Database
    results: Results
    watcher: JobWatcher

    async def put(self, job: Job, segment_id: int, text: str, condition: str | None, author: str) -> ResultSegment:
        """Correct a segment and return it. condition: If-Match of the request.

        Raises InvalidFieldError for the text; SegmentNotFoundError, PreconditionRequiredError,
        CorrectionConflictError, TooManyCorrectionsError, JobNotFoundError; and as `Results.read` does.
        """
        if len(text) > 2 * MAX_TEXT:
            raise _invalid_text()
        try:
            clean = cleaned_text(text)
        except ValueError:
            raise _invalid_text() from None
        if len(clean) > MAX_TEXT:
            raise _invalid_text()
        return await self._change(job, segment_id, clean, condition, author)

    async def remove(self, job: Job, segment_id: int, condition: str | None, author: str) -> ResultSegment:
        """Restore the machine's text of a segment and return it. Raises as `put` does."""
        return await self._change(job, segment_id, None, condition, author)

    async def _change(
        self, job: Job, segment_id: int, text: str | None, condition: str | None, author: str
    ) -> ResultSegment:
        result = await self.results.read(job)
        segment = next((each for each in result.segments if each.id == segment_id), None)
        if segment is None:
            raise SegmentNotFoundError
        if condition is None:
            raise PreconditionRequiredError
        async with self.database.write() as session:
            if not await corrections.lock_job(session, job.job_id, job.owner):
                raise job_not_found(job.job_id)
            present = await corrections.get(session, job.job_id, segment_id)
            if not matches(condition, 0 if present is None else present.version):
                raise CorrectionConflictError(current=shown(corrected(segment, present)))
            if text is None and (present is None or present.text is None):
                return corrected(segment, present)
            if present is None and await corrections.count(session, job.job_id) >= MAX_CORRECTIONS:
                raise TooManyCorrectionsError
            change = await corrections.store(session, job.job_id, segment_id, text, segment.text, author)
        log.info("segment corrected", action="segment_corrected", job_id=job.job_id, segment=segment_id)
        return corrected(segment, change)

    async def follow(self, job_id: str, after: int) -> AsyncGenerator[CorrectionEvent]:
        """Yield the changes numbered above `after` as they are made, until the job is deleted."""
        async with self.watcher.watch(job_id) as watch:
            seen = -1
            while True:
                if not await watch.wait_for_change(seen, KEEP_ALIVE_SECONDS):
                    yield CorrectionEvent()
                    continue
                seen = watch.seq
                async with self.database.read() as session:
                    exists = await jobs.get(session, job_id) is not None
                    changes = await corrections.list_changes(session, job_id, after) if exists else []
                for change in changes:
                    after = change.version
                    yield CorrectionEvent(change)
                if not exists:
                    yield CorrectionEvent(deleted=True)
                    return


def matches(condition: str, version: int) -> bool:
    """Return True if If-Match names this version. Weak tags never match."""
    tags = [tag.strip() for tag in condition[:MAX_CONDITION].split(",")]
    return tags == ["*"] or any(match and int(match[1]) == version for match in map(_TAG.fullmatch, tags))


def shown(segment: ResultSegment) -> dict[str, object]:
    """Return the segment as in the responses of the API."""
    data = segment_to_json(segment)
    del data["chunk"]
    return {"version": 0} | data


def _invalid_text() -> InvalidFieldError:
    return InvalidFieldError(
        "text", "`text` must have at most {limit} characters and no control characters.", limit=MAX_TEXT
    )
