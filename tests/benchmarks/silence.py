"""Speed of silence detection compared with pydub on one hour, and peak memory of preparing three hours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from pydub import AudioSegment
from pydub.silence import detect_silence

from core.domain.spans import SAMPLE_RATE
from tests.benchmarks.table import Row
from tests.e2e.service import ROOT
from tests.speech import Audio, recording, write_wav
from worker.chunking.silence import SilenceDetector
from worker.ffmpeg import program

HOUR = 3600 * SAMPLE_RATE
PREPARE = """
import asyncio, re, sys
from pathlib import Path
from core.config import load_settings
from internal.consumer.runtime import Consumer
from worker.chunking import ChunkLimits
from worker.preparer import prepare
source, target = Path(sys.argv[1]), Path(sys.argv[2])
limits = ChunkLimits.from_settings(load_settings(_env_file=None))
how = dict(strategy="silence_based", threshold_dbfs=-40, min_silence=1.0, max_duration=21600)
done = asyncio.run(prepare(source, target, limits, **how))
# not getrusage: its peak is inherited from the parent
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(int(peak[1]) // 1024, round(done.duration), len(done.chunks))
"""


def one_hour() -> Audio:
    minutes = np.concatenate([recording("en", 40, seed)[0] for seed in range(4)])
    return np.tile(minutes, HOUR // len(minutes) + 1)[:HOUR]


def run() -> list[Row]:
    audio = one_hour()
    our_seconds, our_silences = timed(lambda: detect(audio))
    pydub_seconds, pydub_silences = timed(lambda: detect_with_pydub(audio))
    assert our_silences == pydub_silences, "the cuts differ"
    return [
        Row(
            "silence search, times faster than pydub (1 h, 10 ms steps, same cuts)",
            f"{pydub_seconds / our_seconds:.0f} ×",
            f"{our_seconds:.3f} s, pydub {pydub_seconds:.1f} s",
            "≥ 100 ×",
        ),
        memory(audio),
    ]


def timed(function: object) -> tuple[float, list[tuple[int, int]]]:
    started = time.process_time()
    silences = function()  # type: ignore[operator]
    return time.process_time() - started, silences


def detect(audio: Audio) -> list[tuple[int, int]]:
    detector = SilenceDetector(1000)
    for start in range(0, len(audio), 512 * 1024):
        detector.feed(audio[start : start + 512 * 1024].tobytes())
    return [(span.first // 16, span.last // 16) for span in detector.finish(-40.0)]


def detect_with_pydub(audio: Audio) -> list[tuple[int, int]]:
    segment = AudioSegment(audio.tobytes(), sample_width=2, frame_rate=SAMPLE_RATE, channels=1)
    silences = detect_silence(segment, min_silence_len=1000, silence_thresh=-40, seek_step=10)
    return [(first, last) for first, last in silences]


def memory(audio: Audio) -> Row:
    with tempfile.TemporaryDirectory() as name:
        hour, three = write_wav(Path(name) / "hour.wav", audio), Path(name) / "three.flac"
        loop = [program(), "-v", "error", "-stream_loop", "2", "-i", str(hour), str(three)]
        subprocess.run(loop, check=True)
        call = [sys.executable, "-c", PREPARE, str(three), str(Path(name) / "pcm")]
        words = subprocess.run(call, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    compared = f"{int(words[1]) / 3600:.1f} h, {words[2]} chunks planned"
    return Row("consumer's own peak memory for three hours", f"{words[0]} MB", compared, "≤ 200 MB")
