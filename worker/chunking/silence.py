"""Where nobody speaks: a streaming, vectorised silence detector.

`SilenceDetector` finds what `pydub.silence.detect_silence` finds with `seek_step=10` (a test holds them together):
windows of `min_silence` whose integer RMS is at most the threshold, every 10 ms.
It keeps 8 bytes per 10 ms and the last window's samples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from core.domain.spans import SAMPLE_RATE, Span

STEP_MS = 10
PER_MS = SAMPLE_RATE // 1000
FRAME = STEP_MS * PER_MS
FULL_SCALE = 32768.0
NEAR_NOTHING = -75.0
"""dBFS: what stays under this is digital silence, whatever its shape."""
FLOOR = -96.0
"""dBFS of less than one step of 16-bit sound."""
LOUDER = 12.0
"""dB above the recording's noise floor from which something may be speech."""
SPEECH_RANGE = 25.0
"""dB below its own loud moments down to which a quiet stretch counts as speech."""

Energies = NDArray[np.int64]
"""Sum of squares of each 10 ms, shape (blocks,)."""


class SilenceDetector:
    def __init__(self, min_silence_ms: int) -> None:
        self.min_silence_ms = max(min_silence_ms // STEP_MS, 1) * STEP_MS
        self._blocks: list[Energies] = []
        self._rest = np.zeros(0, dtype=np.int16)
        self._tail = np.zeros(0, dtype=np.int16)
        self.samples = 0

    def feed(self, pcm: bytes) -> None:
        """Take the next samples, s16le."""
        new = np.frombuffer(pcm, "<i2")
        self.samples += len(new)
        keep = (self.min_silence_ms + 2) * PER_MS
        self._tail = np.concatenate([self._tail, new[-keep:]])[-keep:]
        data = np.concatenate([self._rest, new]) if len(self._rest) else new
        whole = len(data) // FRAME
        self._rest = data[whole * FRAME :].copy()
        squares = np.square(data[: whole * FRAME].reshape(whole, FRAME).astype(np.int32), dtype=np.int64)
        self._blocks.append(squares.sum(axis=1))

    def energies(self) -> Energies:
        return np.concatenate(self._blocks) if self._blocks else np.zeros(0, dtype=np.int64)

    def finish(self, threshold_dbfs: float) -> list[Span]:
        """Every silent stretch, in order, as samples."""
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
            Span(first * PER_MS, min(end * PER_MS, self.samples)) for first, end in merged(starts, self.min_silence_ms)
        ]

    def _last_window_is_silent(self, start_ms: int, limit: float) -> bool:
        offset = self.samples - len(self._tail)
        window = self._tail[start_ms * PER_MS - offset :][: self.min_silence_ms * PER_MS].astype(np.int64)
        return bool(np.floor(np.sqrt(np.square(window).sum() / max(len(window), 1))) <= limit)


def low_energy_windows(energies: Energies, blocks: int, limit: float) -> NDArray[np.int64]:
    """First blocks of all windows of `blocks` blocks whose RMS, cut to an integer, is at most `limit`."""
    if len(energies) < blocks:
        return np.zeros(0, dtype=np.int64)
    sums = np.concatenate([[0], np.cumsum(energies)])
    mean = (sums[blocks:] - sums[:-blocks]) / (blocks * FRAME)
    return np.flatnonzero(np.floor(np.sqrt(mean)) <= limit)


def merged(starts: NDArray[np.int64], length: int) -> Iterator[tuple[int, int]]:
    """Join windows that touch or overlap: (start, end) of each stretch."""
    if not len(starts):
        return
    breaks = np.flatnonzero(np.diff(starts) > max(length, STEP_MS)) + 1
    for group in np.split(starts, breaks):
        yield int(group[0]), int(group[-1]) + length


def levels(energies: Energies) -> NDArray[np.float64]:
    """dBFS of each 10 ms, not under FLOOR."""
    rms = np.sqrt(energies / FRAME) / FULL_SCALE
    return np.asarray(20 * np.log10(np.maximum(rms, 10 ** (FLOOR / 20))))


def exclude_quiet_speech(silences: list[Span], energies: Energies, min_silence_ms: int) -> list[Span]:
    """No stretch is dropped on its level alone: a "silence" with life in it is searched again by its own measure.

    Life is what rises LOUDER dB above the recording's noise floor, and above digital silence. Inside such a stretch the
    threshold is relative to its own loud moments, so a recording or a speaker 30 dB quieter is cut at the same places.
    """
    if not len(energies):
        return silences
    decibels = levels(energies)
    floor = float(np.percentile(decibels, 10))
    found: list[Span] = []
    for silence in silences:
        first, last = silence.first // FRAME, silence.last // FRAME
        loud = float(np.percentile(decibels[first:last], 95)) if last > first else FLOOR
        peak = float(decibels[first:last].max()) if last > first else FLOOR
        if max(loud, peak - LOUDER) < max(floor + LOUDER, NEAR_NOTHING):
            found.append(silence)
            continue
        limit = 10 ** (max(floor + LOUDER / 2, loud - SPEECH_RANGE) / 20) * FULL_SCALE
        starts = low_energy_windows(energies[first:last], min_silence_ms // STEP_MS, limit) * STEP_MS
        for start, end in merged(starts, min_silence_ms):
            found.append(Span(silence.first + start * PER_MS, min(silence.first + end * PER_MS, silence.last)))
    return found


def is_digital_silence(energies: Energies) -> bool:
    """Digital silence: no 10 ms above NEAR_NOTHING."""
    return not len(energies) or bool(levels(energies).max() < NEAR_NOTHING)
