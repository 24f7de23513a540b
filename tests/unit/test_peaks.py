"""Peaks of recordings: levels, lengths and size."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.domain.spans import SAMPLE_RATE
from worker.chunking.silence import FRAME, SilenceDetector
from worker.peaks import MAX_PEAKS, peaks


def heard(samples: np.ndarray) -> list[int]:
    detector = SilenceDetector(500)
    detector.feed(samples.astype("<i2").tobytes())
    return list(peaks(detector.energies()).data)


def test_levels() -> None:
    second = np.ones(SAMPLE_RATE)
    assert heard(second * 0) == [0] * 100
    assert heard(second * 32767) == [255] * 100
    assert heard(second * 3277) == [170] * 100  # -20 dBFS: 40 of 60 dB
    assert heard(second * 20) == [0] * 100  # -64 dBFS


def test_one_loud_frame_is_seen_in_the_longest_recording() -> None:
    energies = np.zeros(6 * 3600 * 100, dtype=np.int64)
    energies[1_234_567] = FRAME * 32767**2
    result = peaks(energies)
    assert len(result.data) <= MAX_PEAKS
    assert len(result.to_bytes()) < 23_000
    (place,) = np.flatnonzero(np.frombuffer(result.data, np.uint8))
    assert place * result.seconds_per_peak <= 12345.67 < (place + 1) * result.seconds_per_peak


@given(st.integers(0, 5 * MAX_PEAKS))
def test_the_peaks_cover_the_recording(frames: int) -> None:
    result = peaks(np.ones(frames, dtype=np.int64))
    assert len(result.data) <= MAX_PEAKS
    seconds = len(result.data) * result.seconds_per_peak
    assert frames / 100 <= seconds + 1e-6 < frames / 100 + result.seconds_per_peak + 1e-6


@pytest.mark.parametrize("frames", [0, 3])
def test_the_stored_form(frames: int) -> None:
    stored = json.loads(peaks(np.zeros(frames, dtype=np.int64)).to_bytes())
    assert stored["seconds_per_peak"] == 0.01
    assert base64.b64decode(stored["peaks"]) == bytes(frames)
