"""Cut points of recordings: examples, and properties that every strategy has."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.config import load_settings
from core.domain.spans import SAMPLE_RATE, PlannedChunk, Span, to_recording_time
from core.errors import AudioTooLongError, SettingsError
from worker.chunking import AudioFeatures, ChunkLimits, plan_chunks, strategies, strategy
from worker.chunking.silence import FRAME, SilenceDetector, exclude_quiet_speech
from worker.preparer import plan

SECOND = SAMPLE_RATE
Sound16 = NDArray[np.int16]
LIMITS = ChunkLimits(29 * SECOND, 5 * SECOND, None, int(0.6 * SECOND), 2000)


def tone(seconds: float, level: float = 8000) -> Sound16:
    wave: Sound16 = (level * np.sin(np.arange(int(seconds * SECOND)) * 0.3)).astype(np.int16)
    return wave


def speech_like(seconds: float, sentence: float = 2.2, pause: float = 1.3, seed: int = 1) -> Sound16:
    """Return tones of about `sentence` seconds with pauses between them."""
    rng, pieces, length = random.Random(seed), [], 0.0
    while length < seconds:
        talk = sentence * rng.uniform(0.6, 1.4)
        pieces += [tone(talk), np.zeros(int(pause * SECOND), np.int16)]
        length += talk + pause
    return np.concatenate(pieces)[: int(seconds * SECOND)]


def planned(samples: Sound16, name: str = "silence_based", limits: ChunkLimits = LIMITS) -> list[PlannedChunk]:
    detector = SilenceDetector(1000)
    detector.feed(samples.tobytes())
    return plan(detector, limits, name, -40.0)


def covered(chunks: list[PlannedChunk], samples: int) -> NDArray[np.bool_]:
    covered_samples = np.zeros(samples, dtype=bool)
    for chunk in chunks:
        for span in chunk.spans:
            covered_samples[span.first : span.last] = True
    return covered_samples


@pytest.mark.parametrize("name", ["silence_based", "fixed_size", "hybrid"])
def test_ten_seconds_make_one_chunk(name: str) -> None:
    assert len(planned(tone(10), name)) == 1


@pytest.mark.parametrize(("seconds", "chunks"), [(60, 3), (600, 25), (29, 1), (29.5, 2)])
def test_fixed_windows_of_29_s_share_5_s(seconds: float, chunks: int) -> None:
    windows = strategy("fixed_size")(AudioFeatures(int(seconds * SECOND)), LIMITS)
    assert len(windows) == chunks
    assert all(chunk.overlap >= 5 for chunk in windows[1:])
    assert windows[-1].end_time == seconds


def test_chunks_are_filled_without_pauses() -> None:
    samples = speech_like(600)
    chunks = planned(samples)
    spoken = sum(chunk.samples for chunk in chunks) / SECOND
    assert len(chunks) <= math.ceil(spoken / 27)
    assert spoken < 600 * 0.85, "the chunks contain the pauses"


def test_cuts_are_in_silences() -> None:
    samples = speech_like(300, seed=3)
    for chunk in planned(samples):
        for span in chunk.spans:
            for edge in {span.first, span.last} - {0, len(samples)}:
                assert not samples[max(edge - 80, 0) : edge + 80].any(), "an edge lies in speech"


def test_chunks_overlap_if_there_is_no_silence() -> None:
    chunks = planned(tone(100))
    assert len(chunks) == 4
    assert [chunk.overlap for chunk in chunks[1:]] == [3.0, 3.0, 3.0]
    assert covered(chunks, 100 * SECOND).all()


def test_a_cut_in_a_dip_needs_no_overlap() -> None:
    samples = tone(50)
    samples[25 * SECOND : 25 * SECOND + SECOND // 4] = 0
    chunks = planned(samples)
    assert len(chunks) == 2
    assert chunks[1].overlap == 0
    assert chunks[1].start_time == pytest.approx(25.12, abs=0.1)


def test_hybrid_uses_fixed_windows_between_silences() -> None:
    samples = np.concatenate([tone(70), np.zeros(3 * SECOND, np.int16), tone(5)])
    chunks = planned(samples, "hybrid")
    assert [round(chunk.overlap) for chunk in chunks] == [0, 3, 3]
    assert covered(chunks, len(samples))[: 70 * SECOND].all()
    assert covered(chunks, len(samples))[73 * SECOND :].all()


def test_digital_silence_has_no_chunks() -> None:
    assert planned(np.zeros(60 * SECOND, np.int16)) == []
    assert planned(np.zeros(0, np.int16)) == []


def test_steady_noise_below_the_threshold_is_kept() -> None:
    noise = (np.random.default_rng(1).standard_normal(60 * SECOND) * 20).astype(np.int16)
    chunks = planned(noise)
    assert covered(chunks, len(noise)).all()


def test_a_recording_30_db_quieter_has_the_same_cuts() -> None:
    samples = speech_like(120, seed=5)
    quiet = (samples / 10**1.5).astype(np.int16)
    loud_chunks, quiet_chunks = planned(samples), planned(quiet)
    assert len(loud_chunks) == len(quiet_chunks)
    for loud_chunk, quiet_chunk in zip(loud_chunks, quiet_chunks, strict=True):
        assert loud_chunk.start_time == pytest.approx(quiet_chunk.start_time, abs=0.2)


def test_a_quiet_speaker_after_a_loud_one_is_kept() -> None:
    loud, quiet = speech_like(60, seed=6), (speech_like(60, seed=7) / 30).astype(np.int16)
    samples = np.concatenate([loud, quiet])
    covered_samples = covered(planned(samples), len(samples))
    spoken = np.abs(samples) > 50
    assert (covered_samples & spoken).sum() / spoken.sum() > 0.99


def test_the_error_for_too_many_chunks_names_the_setting() -> None:
    few = ChunkLimits(29 * SECOND, 5 * SECOND, None, 9600, 2)
    with pytest.raises(AudioTooLongError, match="MAX_CHUNKS_PER_JOB"):
        plan_chunks("fixed_size", AudioFeatures(200 * SECOND), few)


def test_the_error_for_an_unknown_strategy_lists_the_known_ones() -> None:
    assert strategies() == ["fixed_size", "hybrid", "silence_based"]
    with pytest.raises(SettingsError, match="hybrid"):
        strategy("packing")


def test_limits_are_read_from_the_settings() -> None:
    limits = ChunkLimits.from_settings(load_settings(_env_file=None, chunk_overlap_seconds=2.0))
    assert (limits.longest, limits.overlap, limits.max_chunks) == (29 * SECOND, 2 * SECOND, 2000)


@st.composite
def recordings(draw: st.DrawFn) -> AudioFeatures:
    """Draw a recording with arbitrary silences in steps of 10 ms."""
    blocks = draw(st.integers(1, 20_000))
    marks = sorted(draw(st.sets(st.integers(0, blocks), max_size=12)))
    silences = [Span(a * FRAME, b * FRAME) for a, b in zip(marks[::2], marks[1::2], strict=False) if b > a]
    energies = np.full(blocks, 10**9, dtype=np.int64)
    for silence in silences:
        energies[silence.first // FRAME : silence.last // FRAME] = 0
    return AudioFeatures(blocks * FRAME, tuple(silences), energies)


@settings(max_examples=150, deadline=None)
@given(recordings(), st.sampled_from(["silence_based", "fixed_size", "hybrid"]), st.sampled_from([10, 29, 60]))
def test_every_strategy_covers_all_speech_within_the_limits(audio: AudioFeatures, name: str, seconds: int) -> None:
    limits = ChunkLimits(seconds * SECOND, 5 * SECOND, None, int(0.6 * SECOND), 100_000)
    chunks = strategy(name)(audio, limits)
    covered_samples = covered(chunks, audio.samples)
    for silence in audio.silences:
        covered_samples[silence.first : silence.last] = True
    assert covered_samples.all(), "speech was left out"
    for chunk in chunks:
        assert 0 < chunk.samples <= limits.longest
        assert all(0 <= span.first < span.last <= audio.samples for span in chunk.spans)
        assert list(chunk.spans) == sorted(chunk.spans)
    for before, after in itertools.pairwise(chunks):
        assert after.start_time >= before.end_time - after.overlap - 0.001, (
            "two chunks share audio that `overlap` does not mention"
        )


@settings(max_examples=100, deadline=None)
@given(recordings(), st.data())
def test_chunk_times_are_mapped_to_recording_times(audio: AudioFeatures, data: st.DataObject) -> None:
    chunks = strategy("silence_based")(audio, LIMITS)
    if not chunks:
        return
    chunk = data.draw(st.sampled_from(chunks))
    offset = data.draw(st.integers(0, chunk.samples - 1))
    recording = [sample for span in chunk.spans for sample in range(span.first, span.last, 1600)]
    mapped = to_recording_time(chunk.spans, offset / SECOND)
    at, passed = 0, 0
    for span in chunk.spans:
        if offset < passed + span.samples:
            at = span.first + offset - passed
            break
        passed += span.samples
    assert abs(mapped - at / SECOND) < 0.1
    assert recording[0] / SECOND <= mapped <= chunk.end_time


def test_a_long_stretch_is_cut_in_the_last_third_of_a_chunk() -> None:
    energies = np.full(4000, 8000**2 * FRAME, dtype=np.int64)
    energies[1600:1620] = 0
    energies[2500:2520] = 80**2 * FRAME
    [first, second] = plan_chunks("silence_based", AudioFeatures(40 * SECOND, (), energies), LIMITS)
    assert first.spans == (Span(0, 2510 * FRAME),)
    assert (second.spans, second.overlap) == ((Span(2510 * FRAME, 40 * SECOND),), 0)


def with_pauses(*lengths: float, talk: float) -> Sound16:
    """Return tones of `talk` seconds, each followed by a pause of the next length."""
    return np.concatenate([part for pause in lengths for part in (tone(talk), np.zeros(int(pause * SECOND), np.int16))])


@pytest.mark.parametrize(
    "samples",
    [
        with_pauses(*[0.3, 0.4, 0.6] * 20, talk=2.1),
        with_pauses(*[0.25, 0.25, 0.25, 0.25, 0.25, 1.5] * 8, talk=2.8),  # turns of 18 s
        with_pauses(*[4.0] * 40, talk=2.5),
    ],
    ids=["short pauses", "long turns", "long pauses"],
)
def test_chunks_are_full_whatever_the_pauses(samples: Sound16) -> None:
    chunks = planned(samples)
    lengths = [sum(span.samples for span in chunk.spans) for chunk in chunks]
    assert np.mean(lengths[:-1]) >= 0.9 * LIMITS.longest
    assert [chunk.overlap for chunk in chunks] == [0.0] * len(chunks)
    for chunk in chunks[:-1]:
        end = chunk.spans[-1].last
        assert not samples[end - SECOND // 20 : end + SECOND // 20].any(), "the cut is in a pause"


def test_a_long_pause_is_preferred_to_a_later_gap_in_a_sentence() -> None:
    samples = tone(40)
    for start, length in ((23.0, 0.6), (25.0, 0.5), (27.0, 0.22)):
        samples[int(start * SECOND) : int((start + length) * SECOND)] = 0
    [first, _] = planned(samples)
    assert first.end_time == pytest.approx(25.25, abs=0.05)


def test_a_time_past_the_end_is_mapped_to_the_end() -> None:
    spans = (Span(0, SECOND), Span(5 * SECOND, 6 * SECOND), Span(8 * SECOND, 9 * SECOND))
    assert to_recording_time(spans, 0.5) == 0.5
    assert to_recording_time(spans, 1.0) == 5.0
    assert to_recording_time(spans, 99) == 9.0
    assert to_recording_time(spans, -1) == 0.0


def test_a_refined_silence_keeps_true_silence() -> None:
    energies = np.zeros(1000, dtype=np.int64)
    silences = [Span(0, 1000 * FRAME)]
    assert exclude_quiet_speech(silences, energies, 1000) == silences
    assert exclude_quiet_speech(silences, np.zeros(0, dtype=np.int64), 1000) == silences
