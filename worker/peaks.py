"""Peaks of a recording: the loudness of its stretches, for a strip that shows where speech and silence are."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import dataclass

import numpy as np

from worker.chunking.silence import STEP_MS, Energies, levels

MAX_PEAKS = 16_384
"""Peaks of a long recording: 22 kB in base64. One of six hours has a peak for each 1.32 s."""
QUIETEST = -60.0
"""dBFS of a peak of 0; 255 is 0 dBFS."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of a recording. data: one byte per peak; seconds_per_peak: a multiple of 10 ms."""

    seconds_per_peak: float
    data: bytes

    def to_bytes(self) -> bytes:
        """Return the stored form, JSON with the data in base64."""
        fields = {"seconds_per_peak": self.seconds_per_peak, "peaks": base64.b64encode(self.data).decode()}
        return json.dumps(fields).encode()


def peaks(energies: Energies) -> Peaks:
    """Return the level of the loudest frame of each stretch. energies: one per frame of 10 ms."""
    frames = max(math.ceil(len(energies) / MAX_PEAKS), 1)
    seconds = frames * STEP_MS / 1000
    if not len(energies):
        return Peaks(seconds, b"")
    loudest = np.maximum.reduceat(energies, np.arange(0, len(energies), frames))
    share = (np.clip(levels(loudest), QUIETEST, 0.0) - QUIETEST) / -QUIETEST
    return Peaks(seconds, np.round(share * 255).astype(np.uint8).tobytes())
