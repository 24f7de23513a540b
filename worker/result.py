"""The result of a job. It is built from committed rows only, so building it again gives the same bytes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from core.domain.job import JobStatus
from core.domain.job_options import MergeMethod
from core.domain.result import Result, ResultChunk, ResultModel, ResultSegment, Timings
from core.domain.transcript import ChunkTranscript
from worker.merger import MergedSegment, RunningMerge, merge

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class JobMetadata:
    """Data of the job's row. timestamp: of the last commit, in UTC; durations in seconds."""

    job_id: str
    timestamp: datetime
    language: str
    detected_language: str
    model: str
    file_sha256: str
    options: dict[str, Any]
    duration_seconds: float
    download_seconds: float
    decode_seconds: float
    total_seconds: float


def build_result(metadata: JobMetadata, chunks: Sequence[ChunkTranscript], method: MergeMethod) -> Result:
    """Merge the chunks and return the result. Without speech, its text is empty and its confidence 0."""
    segments = merged_segments(chunks, method)
    engines = "; ".join(sorted({chunk.engine for chunk in chunks if chunk.engine}))
    text = " ".join(segment.text for segment in segments)
    return Result(
        job_id=metadata.job_id,
        timestamp=metadata.timestamp.astimezone(UTC).isoformat(),
        status=JobStatus.COMPLETED.value,
        language=metadata.language,
        detected_language=metadata.detected_language,
        model=ResultModel(metadata.model, metadata.file_sha256, engines, dict(sorted(metadata.options.items()))),
        duration_seconds=round(metadata.duration_seconds, 3),
        text=text,
        word_count=len(text.split()),
        character_count=len(text),
        confidence=confidence(segments),
        segments=tuple(segments),
        chunks=tuple(ResultChunk(c.index, c.start, c.end, c.attempts, round(c.seconds, 3)) for c in chunks),
        timings=_timings(metadata, chunks),
    )


def merged_segments(chunks: Sequence[ChunkTranscript], method: MergeMethod) -> list[ResultSegment]:
    """Return the merged segments in the public format. Chunks of an unfinished job may be missing."""
    merged = [item for item in merge(chunks, method) if clean(item.segment.text)]
    return [_segment(number, item) for number, item in enumerate(merged)]


class RunningSegments:
    """The merged segments in the public format, one chunk at a time."""

    def __init__(self, method: MergeMethod) -> None:
        self._merge, self._count = RunningMerge(method), 0

    def extend(self, chunk: ChunkTranscript, following: ChunkTranscript | None) -> tuple[ResultSegment, ...]:
        """Return the segments of the next chunk. following: the chunk after it, if it is finished."""
        merged = [item for item in self._merge.extend(chunk, following) if clean(item.segment.text)]
        first, self._count = self._count, self._count + len(merged)
        return tuple(_segment(number, item) for number, item in enumerate(merged, first))


def _segment(number: int, merged: MergedSegment) -> ResultSegment:
    segment = merged.segment
    start, end = round(segment.start, 3), round(segment.end, 3)
    words = (
        replace(word, word=clean(word.word), start=round(word.start, 3), end=round(word.end, 3))
        for word in segment.words
    )
    return ResultSegment(
        number,
        merged.chunk,
        start,
        end,
        clean(segment.text),
        round(segment.confidence, 4),
        tuple(word for word in words if word.word),
    )


def clean(text: str) -> str:
    """Return the text in NFC, with single spaces and without control characters."""
    return " ".join(_CONTROL.sub(" ", unicodedata.normalize("NFC", text)).split())


def confidence(segments: Sequence[ResultSegment]) -> float:
    """Return the mean confidence of the segments, weighted by their number of words; 0 without words."""
    weights = [len(segment.text.split()) for segment in segments]
    if not sum(weights):
        return 0.0
    weighted = sum(segment.confidence * weight for segment, weight in zip(segments, weights, strict=True))
    return round(weighted / sum(weights), 4)


def _timings(metadata: JobMetadata, chunks: Sequence[ChunkTranscript]) -> Timings:
    seconds = sum(chunk.seconds for chunk in chunks)
    factor = seconds / metadata.duration_seconds if metadata.duration_seconds else 0.0
    return Timings(
        download=round(metadata.download_seconds, 3),
        decode=round(metadata.decode_seconds, 3),
        chunks=round(seconds, 3),
        total=round(metadata.total_seconds, 3),
        real_time_factor=round(factor, 4),
    )
