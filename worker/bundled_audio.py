"""Samples of the bundled recordings, for trials of engines and models."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np

from core.domain.spans import SAMPLE_RATE
from worker.ffmpeg import program
from worker.transcriber import Samples


def decode(recording: Path) -> Samples:
    """Return the samples of a trusted recording, 16 kHz mono, -1..1. Raises subprocess.CalledProcessError."""
    command = [program(), "-nostdin", "-i", str(recording), "-f", "s16le", "-ac", "1", "-ar", str(SAMPLE_RATE), "-"]
    pcm = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
