"""Log-mel features of 30 s of audio, as in OpenAI's `whisper/audio.py`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worker.token_segments import WINDOW
from worker.transcriber import Samples

FFT = 400
"""Samples of one Fourier transform: 25 ms."""
HOP = 160
"""Samples between two frames: 10 ms."""
FRAMES = WINDOW // HOP
DYNAMIC_RANGE = 8.0
"""Powers of ten below the loudest bin at which values are cut off."""
_HANN = np.hanning(FFT + 1)[:-1].astype(np.float32)


def log_mel(samples: Samples, filters: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features of shape (mels, 3000). samples: at most WINDOW; silence is appended. filters: (mels, 201)."""
    padded = np.pad(samples, (0, WINDOW - len(samples)))
    padded = np.pad(padded, FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP][:FRAMES]
    spectrum = np.fft.rfft(frames * _HANN, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    values = np.log10(np.maximum(filters @ power.T, 1e-10))
    values = np.maximum(values, values.max() - DYNAMIC_RANGE)
    return np.asarray((values + 4) / 4, np.float32)
