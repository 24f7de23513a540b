"""Whisper's mel filters, computed: the bands of Slaney's Auditory Toolbox, as librosa's `filters.mel` has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from core.domain.spans import SAMPLE_RATE
from worker.model_files.shape import BINS

LINEAR_STEP = 200 / 3
"""Hertz of one mel below 1,000 Hz."""
LOG_FROM = 1000.0
"""Hertz above which the scale is logarithmic."""
LOG_STEP = np.log(6.4) / 27
"""Natural logarithm of the ratio of frequencies one mel apart."""


def mel_filters(bands: int) -> NDArray[np.float32]:
    """Return triangular filters of equal area, shape (bands, 201), over 0 to 8,000 Hz."""
    top = LOG_FROM / LINEAR_STEP + np.log(SAMPLE_RATE / 2 / LOG_FROM) / LOG_STEP
    edges = _hertz(np.linspace(0, top, bands + 2))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, BINS)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return filters.astype(np.float32)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    start = LOG_FROM / LINEAR_STEP
    return np.where(mels < start, mels * LINEAR_STEP, LOG_FROM * np.exp(LOG_STEP * np.maximum(mels - start, 0)))
