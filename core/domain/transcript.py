"""Transcripts: words, segments, and the transcript of one chunk."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """A spoken word. start and end in seconds; probability 0..1."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech as the engine returns it. start, end: seconds; confidence: mean token probability, 0..1."""

    start: float
    end: float
    text: str
    confidence: float
    words: tuple[Word, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Segment:
        words = tuple(Word(**word) for word in data.get("words", ()))
        return cls(data["start"], data["end"], data["text"], data["confidence"], words)


@dataclass(frozen=True, slots=True)
class ChunkTranscript:
    """The transcript of one finished chunk, with its segments in the recording's time.

    start, end: seconds of the recording; overlap: seconds at its start that it shares with the previous chunk, 0 if the
    cut is in silence; seconds: duration of its transcription; engine: the one that made it, empty if unknown.
    """

    index: int
    start: float
    end: float
    segments: tuple[Segment, ...]
    overlap: float = 0.0
    attempts: int = 1
    seconds: float = 0.0
    engine: str = ""
