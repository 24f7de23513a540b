"""Silence detection, compared with pydub as the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydub import AudioSegment
from pydub.silence import detect_silence

from core.domain.spans import SAMPLE_RATE, Span
from worker.chunking.silence import SilenceDetector
from worker.cut_points import quietest_sample

Sound16 = NDArray[np.int16]


def detect_with_pydub(samples: Sound16, min_silence_ms: int, threshold: float) -> list[tuple[int, int]]:
    segment = AudioSegment(samples.tobytes(), sample_width=2, frame_rate=SAMPLE_RATE, channels=1)
    silences = detect_silence(segment, min_silence_len=min_silence_ms, silence_thresh=threshold, seek_step=10)
    return [(first, last) for first, last in silences]


def detect(samples: Sound16, min_silence_ms: int, threshold: float, piece: int = 50_000) -> list[Span]:
    detector = SilenceDetector(min_silence_ms)
    for start in range(0, len(samples), piece):
        detector.feed(samples[start : start + piece].tobytes())
    return detector.finish(threshold)


def check_same_silences(samples: Sound16, min_silence_ms: int, threshold: float, piece: int = 50_000) -> None:
    expected = [
        (first * 16, min(last * 16, len(samples)))
        for first, last in detect_with_pydub(samples, min_silence_ms, threshold)
    ]
    assert [(span.first, span.last) for span in detect(samples, min_silence_ms, threshold, piece)] == expected


def noise(seed: int, seconds: float) -> Sound16:
    """Return noise in stretches of random length and loudness."""
    rng = np.random.default_rng(seed)
    pieces: list[NDArray[np.float64]] = []
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
        loudness = rng.choice([0, 5, 100, 327, 328, 400, 3000, 20_000])
        pieces.append(rng.standard_normal(int(rng.uniform(0.05, 2.5) * SAMPLE_RATE)) * loudness)
    clipped: Sound16 = np.clip(np.concatenate(pieces)[: int(seconds * SAMPLE_RATE)], -32768, 32767).astype(np.int16)
    return clipped


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([1.0, 3.217, 7.5, 12.0049]),
    st.sampled_from([300, 500, 1000, 2990]),
    st.sampled_from([-60.0, -40.0, -25.5]),
    st.sampled_from([1, 999, 160_000]),
)
def test_silences_are_the_same_as_those_of_pydub(
    seed: int, seconds: float, min_silence_ms: int, threshold: float, piece: int
) -> None:
    check_same_silences(noise(seed, seconds), min_silence_ms, threshold, max(piece, 500))


@pytest.mark.parametrize("samples", [np.zeros(0, np.int16), np.zeros(500, np.int16), np.zeros(48_000, np.int16)])
def test_recordings_without_sound_have_the_same_silences(samples: Sound16) -> None:
    check_same_silences(samples, 1000, -40.0)


def test_audio_exactly_at_the_threshold_is_silence() -> None:
    level = int(10 ** (-40 / 20) * 32768)
    check_same_silences(np.full(5 * SAMPLE_RATE, level, np.int16), 1000, -40.0)
    check_same_silences(np.full(5 * SAMPLE_RATE, level + 1, np.int16), 1000, -40.0)


def test_full_scale_does_not_overflow() -> None:
    loud = np.full(4 * SAMPLE_RATE, -32768, np.int16)
    assert detect(loud, 1000, -40.0) == []
    check_same_silences(loud, 1000, -1.0)


@pytest.mark.parametrize("quiet", [16_000, 17_600, 30_400])
def test_the_quietest_sample_is_in_the_middle_of_the_quietest_100_ms(quiet: int) -> None:
    samples = np.ones(3 * SAMPLE_RATE, dtype=np.float32)
    samples[:8000] = samples[40_000:] = 0.0  # quieter, but outside of the stretch
    samples[quiet : quiet + 1600] = -0.1
    assert quietest_sample(samples, 16_000, 32_000) == quiet + 800


def test_a_stretch_below_100_ms_is_cut_in_its_middle() -> None:
    assert quietest_sample(np.ones(SAMPLE_RATE, dtype=np.float32), 1000, 2599) == 1799
    assert quietest_sample(np.ones(SAMPLE_RATE, dtype=np.float32), 1000, 2600) == 1800
