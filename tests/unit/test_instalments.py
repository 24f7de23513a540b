"""Plans in instalments: every stretch of speech is planned once, and no cut depends on later audio."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.domain.spans import PlannedChunk
from core.errors import AudioTooLongError
from tests.unit.test_chunking import LIMITS, SECOND, Sound16, covered, planned, speech_like, tone
from worker.chunking import ChunkLimits, strategies
from worker.chunking.silence import SilenceDetector
from worker.preparer import Planning, Released, plan_instalment, plan_rest


def plan_in_instalments(
    samples: Sound16, ends: list[int], name: str = "silence_based", limits: ChunkLimits = LIMITS
) -> list[list[PlannedChunk]]:
    """Return the chunks of an instalment at each of these samples, and those of the rest."""
    detector, planning = SilenceDetector(1000), Planning(limits, name, -40.0)
    parts, released, fed = [], Released(), 0
    for end in ends:
        detector.feed(samples[fed:end].tobytes())
        fed = end
        chunks = plan_instalment(detector, planning, released)
        parts.append(chunks)
        if chunks:
            released = Released(released.chunks + len(chunks), chunks[-1].spans[-1].last)
    detector.feed(samples[fed:].tobytes())
    return [*parts, plan_rest(detector, planning, released)]


def test_instalments_of_speech_have_the_chunks_of_the_whole() -> None:
    samples = speech_like(900, seed=8)
    first, second, rest = plan_in_instalments(samples, [300 * SECOND, 600 * SECOND])
    assert len(first) >= 7
    assert len(second) >= 7
    assert first + second + rest == planned(samples)


@st.composite
def sounds(draw: st.DrawFn) -> Sound16:
    """Draw two to five minutes of tones of several levels and pauses of several lengths."""
    level = st.sampled_from([8000, 2000, 200, 12, 0])
    pieces = draw(st.lists(st.tuples(level, st.integers(1, 250)), min_size=8, max_size=60))
    noise = np.random.default_rng(1)
    return np.concatenate(
        [tone(tenths / 5, high) + noise.integers(-3, 4, int(tenths / 5 * SECOND), np.int16) for high, tenths in pieces]
    )


@settings(max_examples=60, deadline=None)
@given(sounds(), st.sampled_from(strategies()), st.sampled_from([None, 0]), st.lists(st.floats(0.1, 0.95), max_size=4))
def test_instalments_cover_all_speech_once(
    samples: Sound16, name: str, overlap: int | None, fractions: list[float]
) -> None:
    limits = ChunkLimits(LIMITS.longest, LIMITS.shortest, overlap, LIMITS.max_pause, 100_000)
    parts = plan_in_instalments(samples, [int(len(samples) * each) for each in sorted(fractions)], name, limits)
    chunks = [chunk for part in parts for chunk in part]
    spoken = np.abs(samples) >= 1000
    assert covered(chunks, len(samples))[spoken].all(), "speech was left out"
    for chunk in chunks:
        assert 0 < chunk.samples <= limits.longest
        assert all(0 <= span.first < span.last <= len(samples) for span in chunk.spans)
    for before, after in itertools.pairwise(chunks):
        assert after.start_time >= before.end_time - after.overlap - 0.001
    for part in parts[1:]:
        assert not part or not part[0].overlap, "an instalment shares no audio with the one before"


@pytest.mark.parametrize(
    "samples",
    [tone(300), np.zeros(300 * SECOND, np.int16), np.tile(np.array([9, -9], np.int16), 150 * SECOND)],
    ids=["speech without a pause", "digital silence", "even noise"],
)
def test_nothing_is_released_before_a_cut_is_final(samples: Sound16) -> None:
    [instalment, rest] = plan_in_instalments(samples, [len(samples) - SECOND])
    assert instalment == []
    assert rest == planned(samples)


def test_silence_after_released_speech_has_no_chunks() -> None:
    """A rest of quiet noise is of even level, but the recording is not."""
    noise = np.tile(np.array([9, -9], np.int16), 300 * SECOND)
    noise[: 300 * SECOND] += speech_like(300)
    [first, rest] = plan_in_instalments(noise, [400 * SECOND])
    assert len(first) > 7
    assert max(chunk.end_time for chunk in rest) <= 300


def test_a_recording_that_ends_with_its_released_chunks_has_no_rest() -> None:
    detector = SilenceDetector(1000)
    detector.feed(speech_like(60).tobytes())
    assert plan_rest(detector, Planning(LIMITS, "silence_based", -40.0), Released(2, 60 * SECOND)) == []


def test_the_limit_of_chunks_counts_released_ones() -> None:
    few = ChunkLimits(LIMITS.longest, LIMITS.shortest, None, LIMITS.max_pause, 12)
    with pytest.raises(AudioTooLongError, match=r"needs 1[4-7] chunks"):
        plan_in_instalments(speech_like(540), [300 * SECOND], limits=few)
