"""The result file of a completed job."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from core.domain.transcript import Word


@dataclass(frozen=True, slots=True)
class ResultModel:
    """The model that transcribed the recording, and the options of the job.

    engine_version: the engines of the chunks, separated by `; `; several if the consumers differ.
    """

    name: str
    file_sha256: str
    engine_version: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SegmentCorrection:
    """A correction of a segment. machine_text: the text before it; corrected_at: ISO 8601 in UTC."""

    machine_text: str
    author: str
    corrected_at: str


@dataclass(frozen=True, slots=True)
class ResultSegment:
    """A segment. id: its number from 0; chunk: the index of its chunk; start, end: seconds; confidence: 0..1.

    version: number of its last change by a person, 0 if there was none. A stored result has neither version nor
    correction.
    """

    id: int
    chunk: int
    start: float
    end: float
    text: str
    confidence: float
    words: tuple[Word, ...] = ()
    version: int = 0
    correction: SegmentCorrection | None = None


@dataclass(frozen=True, slots=True)
class ResultChunk:
    """A chunk. start, end: seconds of the recording; seconds: duration of its transcription."""

    index: int
    start: float
    end: float
    attempts: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds. chunks: sum over all chunks; real_time_factor: seconds of work per second of audio."""

    download: float
    decode: float
    chunks: float
    total: float
    real_time_factor: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result. timestamp: ISO 8601 in UTC; texts in NFC. No value is null: without speech the text is empty."""

    job_id: str
    timestamp: str
    status: str
    language: str
    detected_language: str
    model: ResultModel
    duration_seconds: float
    text: str
    word_count: int
    character_count: int
    confidence: float
    segments: tuple[ResultSegment, ...]
    chunks: tuple[ResultChunk, ...]
    timings: Timings

    def to_json(self) -> dict[str, Any]:
        """Return plain data. Segments without words have no key `words`, uncorrected ones no `correction`."""
        data = asdict(self)
        for segment in data["segments"]:
            _remove_empty(segment)
        return data

    def to_bytes(self) -> bytes:
        """Return the result file: UTF-8, with keys in the order of the fields. Equal results are equal bytes."""
        return (json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        return cls(
            **{
                **data,
                "model": ResultModel(**data["model"]),
                "segments": tuple(
                    ResultSegment(**{**segment, "words": tuple(Word(**word) for word in segment.get("words", ()))})
                    for segment in data["segments"]
                ),
                "chunks": tuple(ResultChunk(**chunk) for chunk in data["chunks"]),
                "timings": Timings(**data["timings"]),
            }
        )


def segment_to_json(segment: ResultSegment) -> dict[str, Any]:
    """Return plain data without empty values."""
    data = asdict(segment)
    _remove_empty(data)
    return data


def _remove_empty(segment: dict[str, Any]) -> None:
    for name in ("words", "version", "correction"):
        if not segment[name]:
            del segment[name]
