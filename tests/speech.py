"""Synthetic speech for tests: sentences of the demo model's grammar, spoken by espeak-ng, in any accepted container."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import unicodedata
import wave
from functools import cache
from pathlib import Path
from types import ModuleType

import imageio_ffmpeg
import jiwer
import numpy as np
import pytest
from numpy.typing import NDArray

from worker.ffmpeg import program

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "assets" / "model" / "ggml-demo-q5_0.bin"
SPOKEN = Path.home() / ".cache" / "async-stt" / "speech"
RATE = 16_000
VOICES = {"en": ("en-us", "en-gb+m3", "en-gb-x-rp"), "vi": ("vi", "vi+f2", "vi-vn-x-south")}
Audio = NDArray[np.int16]

ENCODINGS: dict[str, list[str]] = {
    "mp3": ["-c:a", "libmp3lame", "-b:a", "32k"],
    "wav": ["-c:a", "pcm_s16le"],
    "m4a": ["-c:a", "aac", "-f", "ipod"],
    "mp4": ["-c:a", "aac", "-f", "mp4"],
    "aac": ["-c:a", "aac", "-f", "adts"],
    "ogg": ["-c:a", "libvorbis"],
    "flac": ["-c:a", "flac"],
    "wma": ["-c:a", "wmav2", "-f", "asf"],
    "webm": ["-c:a", "libopus", "-b:a", "16k"],
    "mkv": ["-c:a", "libvorbis"],
    "avi": ["-c:a", "libmp3lame", "-f", "avi"],
    "mov": ["-c:a", "pcm_s16le", "-f", "mov"],
    "opus": ["-c:a", "libopus", "-b:a", "16k"],
    "aiff": ["-c:a", "pcm_s16be"],
    "amr": ["-c:a", "libopencore_amrnb", "-ar", "8000", "-ac", "1"],
}


@cache
def grammar() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grammar", ROOT / "assets" / "model" / "grammar.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sentences(language: str, count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [unicodedata.normalize("NFC", grammar().sentence(language, rng)) for _ in range(count)]


@cache
def say(text: str, voice: str, words_per_minute: int = 150) -> Audio:
    """Synthesise one sentence at 16 kHz mono; cached on disk for other workers and later runs."""
    cache_key = json.dumps([text, voice, words_per_minute, RATE, synthesiser()])
    cached = SPOKEN / f"{hashlib.sha256(cache_key.encode()).hexdigest()}.s16"
    if not cached.exists():
        SPOKEN.mkdir(parents=True, exist_ok=True)
        temporary = cached.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(_synthesise(text, voice, words_per_minute))
        temporary.replace(cached)
    return np.frombuffer(cached.read_bytes(), "<i2")


@cache
def synthesiser() -> str:
    """Return the versions of the programs that make the audio."""
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is missing: apt-get install espeak-ng")
    calls = (["espeak-ng", "--version"], [program(), "-version"])
    answers = [subprocess.run(call, check=True, capture_output=True, text=True).stdout for call in calls]
    return "; ".join(answer.splitlines()[0] for answer in answers)


def _synthesise(text: str, voice: str, words_per_minute: int) -> bytes:
    spoken = subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "--stdout", text], check=True, capture_output=True
    ).stdout
    call = [program(), "-v", "error", "-i", "pipe:0", "-ar", str(RATE), "-ac", "1", "-f", "s16le", "pipe:1"]
    return subprocess.run(call, input=spoken, check=True, capture_output=True).stdout


def recording(language: str, count: int, seed: int, pause: float = 1.3, voice: str | None = None) -> tuple[Audio, str]:
    """Return `count` sentences, each followed by `pause` seconds of silence, and their text."""
    texts = sentences(language, count, seed)
    gap = np.zeros(int(pause * RATE), dtype=np.int16)
    speaker = voice or VOICES[language][seed % len(VOICES[language])]
    pieces = [part for text in texts for part in (say(text, speaker), gap)]
    return np.concatenate(pieces), " ".join(texts)


def silence(seconds: float) -> Audio:
    return np.zeros(int(seconds * RATE), dtype=np.int16)


def write_wav(path: Path, audio: Audio, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(audio.tobytes())
    return path


def encode(
    audio: Audio, path: Path, *, rate: int | None = None, channels: int | None = None, video: bool = False
) -> Path:
    """Encode the audio in the container of the extension with the wheel's ffmpeg; Debian's has no AMR encoder."""
    call = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-y",
        "-v",
        "error",
        "-f",
        "s16le",
        "-ar",
        str(RATE),
        "-ac",
        "1",
        "-i",
        "pipe:0",
    ]
    if video:
        call += ["-f", "lavfi", "-i", "color=size=64x64:rate=5", "-shortest", "-c:v", "mpeg4"]
    call += ENCODINGS[path.suffix[1:]]
    call += ["-ar", str(rate)] if rate else []
    call += ["-ac", str(channels)] if channels else []
    completed = subprocess.run([*call, str(path)], input=audio.tobytes(), capture_output=True, check=False)
    assert completed.returncode == 0, completed.stderr.decode()
    return path


def word_error_rate(reference: str, transcript: str) -> float:
    """Return the word error rate in per cent, ignoring case and punctuation."""
    return 100 * float(jiwer.wer(plain(reference), plain(transcript)))


def plain(text: str) -> str:
    words = "".join(character if character.isalnum() or character.isspace() else " " for character in text.lower())
    return " ".join(unicodedata.normalize("NFC", words).split())
