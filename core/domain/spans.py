"""A chunk is a few byte ranges of one working audio object: its spans.

Working audio is 16 kHz mono signed 16-bit little endian, so one second is 32,000 bytes and a sample two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_RATE = 16_000
BYTES_PER_SAMPLE = 2
BYTES_PER_SECOND = SAMPLE_RATE * BYTES_PER_SAMPLE


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Samples `first` (inclusive) to `last` (exclusive) of the recording."""

    first: int
    last: int

    @property
    def samples(self) -> int:
        return self.last - self.first

    @property
    def start_time(self) -> float:
        return self.first / SAMPLE_RATE

    @property
    def end_time(self) -> float:
        return self.last / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """What one chunk transcribes: its spans in order, and the seconds at its start that the chunk before has too."""

    spans: tuple[Span, ...]
    overlap: float = 0.0

    @property
    def samples(self) -> int:
        return sum(span.samples for span in self.spans)

    @property
    def start_time(self) -> float:
        return self.spans[0].start_time

    @property
    def end_time(self) -> float:
        return self.spans[-1].end_time


def to_recording_time(spans: Sequence[Span], seconds: float) -> float:
    """Map a time inside the chunk (its spans laid end to end) to the recording's own time.

    A time past the chunk's end is the end of its last span. On the seam between two spans the later one's start wins.
    """
    left = round(max(seconds, 0.0) * SAMPLE_RATE)
    for span in spans:
        if left < span.samples:
            return (span.first + left) / SAMPLE_RATE
        left -= span.samples
    return spans[-1].end_time
