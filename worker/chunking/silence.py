"""Streaming, vectorised silence detection.

`SilenceDetector` finds the same silences as `pydub.silence.detect_silence` with `seek_step=10`: every 10 ms, windows of
`min_silence_ms` whose integer RMS is at most the threshold. A test compares the two. The detector keeps 8 bytes per
frame of 10 ms, and the samples of the last window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from core.domain.spans import SAMPLE_RATE, Span

STEP_MS = 10
PER_MS = SAMPLE_RATE // 1000
FRAME = STEP_MS * PER_MS
"""Samples in a frame of 10 ms."""
FULL_SCALE = 32768.0
DIGITAL_SILENCE = -75.0
"""dBFS below which audio is digital silence."""
MIN_LEVEL = -96.0
"""dBFS of a level below one quantisation step of 16-bit PCM."""
SPEECH_MARGIN = 12.0
"""dB above the noise floor of the recording from which audio may be speech."""
SPEECH_RANGE = 25.0
"""Frames count as speech down to this many dB below the loudest frames of their stretch."""

Energies = NDArray[np.int64]
"""Sum of squares of the samples of each 10 ms frame, shape (frames,)."""


class SilenceDetector:
    """A detector of silences that receives the recording block by block."""

    def __init__(self, min_silence_ms: int) -> None:
        self.min_silence_ms = max(min_silence_ms // STEP_MS, 1) * STEP_MS
        self._energies: list[Energies] = []
        self._rest = np.zeros(0, dtype=np.int16)
        self._tail = np.zeros(0, dtype=np.int16)
        self.samples = 0

    def feed(self, pcm: bytes) -> None:
        """Process the next block of s16le samples."""
        samples = np.frombuffer(pcm, "<i2")
        self.samples += len(samples)
        tail = (self.min_silence_ms + 2) * PER_MS
        self._tail = np.concatenate([self._tail, samples[-tail:]])[-tail:]
        data = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        frames = len(data) // FRAME
        self._rest = data[frames * FRAME :].copy()
        squares = np.square(data[: frames * FRAME].reshape(frames, FRAME).astype(np.int32), dtype=np.int64)
        self._energies.append(squares.sum(axis=1))

    def energies(self) -> Energies:
        return np.concatenate(self._energies) if self._energies else np.zeros(0, dtype=np.int64)

    def finish(self, threshold_dbfs: float) -> list[Span]:
        """Return all silences in order."""
        length_ms = round(self.samples / PER_MS)
        last = length_ms - self.min_silence_ms
        if last < 0:
            return []
        limit = 10 ** (threshold_dbfs / 20) * FULL_SCALE
        starts = low_energy_windows(self.energies(), self.min_silence_ms // STEP_MS, limit) * STEP_MS
        starts = starts[starts <= last]
        if last % STEP_MS and self._last_window_is_silent(last, limit):
            starts = np.append(starts, last)
        return [
            Span(first * PER_MS, min(end * PER_MS, self.samples))
            for first, end in merge_windows(starts, self.min_silence_ms)
        ]

    def _last_window_is_silent(self, start_ms: int, limit: float) -> bool:
        offset = self.samples - len(self._tail)
        window = self._tail[start_ms * PER_MS - offset :][: self.min_silence_ms * PER_MS].astype(np.int64)
        return bool(np.floor(np.sqrt(np.square(window).sum() / max(len(window), 1))) <= limit)


def low_energy_windows(energies: Energies, frames: int, limit: float) -> NDArray[np.int64]:
    """Return the first frame of each window of `frames` frames whose integer RMS is at most `limit`."""
    if len(energies) < frames:
        return np.zeros(0, dtype=np.int64)
    sums = np.concatenate([[0], np.cumsum(energies)])
    mean = (sums[frames:] - sums[:-frames]) / (frames * FRAME)
    return np.flatnonzero(np.floor(np.sqrt(mean)) <= limit)


def merge_windows(starts: NDArray[np.int64], length: int) -> Iterator[tuple[int, int]]:
    """Merge adjacent and overlapping windows. Yield the start and end of each resulting stretch."""
    if not len(starts):
        return
    breaks = np.flatnonzero(np.diff(starts) > max(length, STEP_MS)) + 1
    for group in np.split(starts, breaks):
        yield int(group[0]), int(group[-1]) + length


def levels(energies: Energies) -> NDArray[np.float64]:
    """Return the level of each frame in dBFS, at least MIN_LEVEL."""
    rms = np.sqrt(energies / FRAME) / FULL_SCALE
    return np.asarray(20 * np.log10(np.maximum(rms, 10 ** (MIN_LEVEL / 20))))


def exclude_quiet_speech(silences: list[Span], energies: Energies, min_silence_ms: int) -> list[Span]:
    """Search silences that may contain quiet speech a second time, with a threshold relative to their own level.

    A silence may contain speech if its level rises SPEECH_MARGIN dB above the noise floor of the recording, and above
    digital silence. Thus a quiet speaker or recording is cut at the same points as one that is 30 dB louder.
    """
    if not len(energies):
        return silences
    decibels = levels(energies)
    floor = float(np.percentile(decibels, 10))
    result: list[Span] = []
    for silence in silences:
        first, last = silence.first // FRAME, silence.last // FRAME
        loud = float(np.percentile(decibels[first:last], 95)) if last > first else MIN_LEVEL
        peak = float(decibels[first:last].max()) if last > first else MIN_LEVEL
        if max(loud, peak - SPEECH_MARGIN) < max(floor + SPEECH_MARGIN, DIGITAL_SILENCE):
            result.append(silence)
            continue
        limit = 10 ** (max(floor + SPEECH_MARGIN / 2, loud - SPEECH_RANGE) / 20) * FULL_SCALE
        starts = low_energy_windows(energies[first:last], min_silence_ms // STEP_MS, limit) * STEP_MS
        for start, end in merge_windows(starts, min_silence_ms):
            result.append(Span(silence.first + start * PER_MS, min(silence.first + end * PER_MS, silence.last)))
    return result


def is_digital_silence(energies: Energies) -> bool:
    """Return True if the level of every frame is below DIGITAL_SILENCE."""
    return not len(energies) or bool(levels(energies).max() < DIGITAL_SILENCE)
