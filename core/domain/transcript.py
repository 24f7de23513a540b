"""What the engine hears: words, segments, and one chunk's share of a recording. Pure data, JSON in and out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word; start and end in seconds, probability 0..1."""

    word: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech as the engine cut it; times in seconds, confidence 0..1 (mean token probability)."""

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
    """One finished chunk: its segments in **recording** time, and what it cost.

    `start` and `end` are the chunk's first and last second of the recording; `overlap` is how many seconds at its
    start it shares with the chunk before it (0 where the cut lies in silence).
    """

    index: int
    start: float
    end: float
    segments: tuple[Segment, ...]
    overlap: float = 0.0
    attempts: int = 1
    seconds: float = 0.0
