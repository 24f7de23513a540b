"""Recordings of the engine benchmark: English and Vietnamese, steady and with long pauses, with their chunks and words.

Two more sets of full windows, with many and with few tokens, separate the cost of encoding from that of decoding.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _pywhispercpp as pw
import numpy as np

from core.config import load_settings
from tests.speech import MODEL, RATE, Audio, recording, silence, write_wav
from worker.chunking import ChunkLimits
from worker.chunking.silence import SilenceDetector
from worker.preparer import plan

PAUSES = {"steady": 0.4, "pauses": 6.0}
"""Seconds between sentences of each group of recordings."""
SENTENCE_SECONDS = 2.8
"""Mean length of a sentence."""
CLIP = "clip"
"""Name of a recording of about ten seconds."""
WINDOW_SECONDS = 28.5
WINDOWS = 4


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording. wav: its file; chunks: spans (first sample, last exclusive) of each; tokens: 0 if not known."""

    wav: str
    group: str
    language: str
    seconds: float
    text: str
    chunks: tuple[tuple[tuple[int, int], ...], ...]
    tokens: int = 0


def prepare(folder: Path, minutes: float) -> list[Recording]:
    """Write the recordings, of `minutes` in total, the windows and a clip to `folder`, with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    recordings = []
    for group, pause in PAUSES.items():
        for language, seed in (("en", 501), ("vi", 502)):
            count = max(2, round(minutes * 60 / 4 / (SENTENCE_SECONDS + pause)))
            audio, text = recording(language, count, seed, pause=pause)
            recordings.append(_written(folder, group, language, audio, text))
    context = pw.whisper_init_from_file_with_params(str(MODEL), pw.whisper_context_default_params())
    windows = [_window(folder, group, index, context) for group in ("dense", "sparse") for index in range(WINDOWS)]
    pw.whisper_free(context)
    audio, text = recording("vi", 4, seed=503, pause=0.4)
    content = {"recordings": recordings, "windows": windows, "clips": [_written(folder, CLIP, "vi", audio, text)]}
    (folder / "recordings.json").write_text(json.dumps(content, default=dataclasses.asdict))
    return recordings


def _written(folder: Path, group: str, language: str, audio: Audio, text: str) -> Recording:
    name = f"{group}-{language}.wav"
    write_wav(folder / name, audio)
    return Recording(name, group, language, len(audio) / RATE, text, chunks_of(audio))


def chunks_of(audio: Audio) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Return the chunks that the service plans with its default settings."""
    settings = load_settings()
    detector = SilenceDetector(round(settings.min_silence_duration_seconds * 1000))
    detector.feed(audio.tobytes())
    planned = plan(detector, ChunkLimits.from_settings(settings), settings.chunk_strategy, settings.silence_threshold)
    return tuple(tuple((span.first, span.last) for span in chunk.spans) for chunk in planned)


def _window(folder: Path, group: str, index: int, context: Any) -> Recording:
    """Write a window of WINDOW_SECONDS full of speech: Vietnamese, or slower English, which has half as many tokens."""
    language, pause = ("vi", 0.5) if group == "dense" else ("en", 1.8)
    length, seed, count = int(WINDOW_SECONDS * RATE), 900 + index, 2
    while len(recording(language, count + 1, seed, pause=pause)[0]) < length:
        count += 1
    audio, text = recording(language, count, seed, pause=pause)
    audio = np.concatenate([audio, silence((length - len(audio)) / RATE)])
    name = f"{group}-{index}.wav"
    write_wav(folder / name, audio)
    tokens = count_tokens(context, audio, language)
    return Recording(name, group, language, len(audio) / RATE, text, (((0, len(audio)),),), tokens)


def count_tokens(context: Any, audio: Audio, language: str) -> int:
    """Return the number of tokens that the demo model decodes for this audio, with timestamps and the end of text."""
    parameters = pw.whisper_full_default_params(pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
    parameters.language, parameters.n_threads = language, 1
    parameters.no_context = parameters.single_segment = True
    parameters.print_progress = parameters.print_realtime = parameters.print_timestamps = False
    samples = np.asarray(audio, dtype=np.float32) / np.float32(32768)
    assert pw.whisper_full(context, parameters, samples, len(samples)) == 0
    segments = range(pw.whisper_full_n_segments(context))
    count = sum(pw.whisper_full_n_tokens(context, segment) for segment in segments)
    return int(count) + 1
