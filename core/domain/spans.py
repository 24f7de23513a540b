"""Spans: the ranges of working audio that a chunk consists of.

Working audio is 16 kHz mono signed 16-bit little-endian PCM: two bytes per sample, 32,000 bytes per second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_RATE = 16_000
BYTES_PER_SAMPLE = 2


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
    """A chunk of a plan. spans: in order; overlap: seconds at its start that it shares with the previous chunk."""

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
    """Convert a time in the chunk, whose spans are concatenated, to a time in the recording, both in seconds.

    A time past the chunk's end is the end of its last span. At the boundary of two spans the later one counts.
    """
    samples_left = round(max(seconds, 0.0) * SAMPLE_RATE)
    for span in spans:
        if samples_left < span.samples:
            return (span.first + samples_left) / SAMPLE_RATE
        samples_left -= span.samples
    return spans[-1].end_time
