"""Where to cut sound that has to be cut: the quietest moment of a stretch."""

from __future__ import annotations

import numpy as np

from core.domain.spans import SAMPLE_RATE
from worker.transcriber import Samples

FRAME = SAMPLE_RATE // 10


def quietest_sample(samples: Samples, first: int, last: int) -> int:
    """The middle (sample index) of the quietest 100 ms between samples `first` and `last`."""
    frames = samples[first:last]
    count = len(frames) // FRAME
    if count < 1:
        return (first + last) // 2
    energy = np.square(frames[: count * FRAME].reshape(count, FRAME)).sum(axis=1)
    return first + int(np.argmin(energy)) * FRAME + FRAME // 2
