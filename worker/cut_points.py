"""Choice of a cut in audio that has no silence."""

from __future__ import annotations

import numpy as np

from core.domain.spans import SAMPLE_RATE
from worker.transcriber import Samples

FRAME = SAMPLE_RATE // 10
"""Samples in a frame of 100 ms."""


def quietest_sample(samples: Samples, first: int, last: int) -> int:
    """Return the middle of the 100 ms frame with the lowest energy between samples `first` and `last`."""
    window = samples[first:last]
    count = len(window) // FRAME
    if count < 1:
        return (first + last) // 2
    energy = np.square(window[: count * FRAME].reshape(count, FRAME)).sum(axis=1)
    return first + int(np.argmin(energy)) * FRAME + FRAME // 2
