"""Errors of word times: the engine's token heuristics compared with its alignment heads.

espeak-ng reports when each word begins, so the reference is exact to the millisecond.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import _pywhispercpp as pw
import numpy as np

from core.domain.job_options import JobOptions
from tests.benchmarks.table import Row
from tests.speech import MODEL, RATE, Audio, plain, sentences
from worker.engine.whisper_cpp import load, load_context, pad
from worker.transcriber import Call, EngineOutput, EngineSpec, Options, Samples

SENTENCES = 40
RETRIEVE, UTF8, WORD = 1, 1, 1
VOICES = {"en": b"en-us", "vi": b"vi"}


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


@dataclass(frozen=True, slots=True)
class Utterance:
    """Synthesised speech; starts: seconds at which each word begins."""

    audio: Audio
    starts: list[float]


class Voice:
    def __init__(self) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("espeak-ng"))
        self._rate = self._library.espeak_Initialize(RETRIEVE, 0, None, 0)
        self._pieces: list[Any] = []
        self._starts: list[float] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._on_audio)
        self._library.espeak_SetSynthCallback(self._callback)

    def _on_audio(self, wave: Any, count: int, events: Any) -> int:
        if wave and count:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        place = 0
        while events[place].type:
            if events[place].type == WORD:
                self._starts.append(events[place].audio_position / 1000)
            place += 1
        return 0

    def say(self, text: str, language: str) -> Utterance:
        self._pieces, self._starts = [], []
        self._library.espeak_SetVoiceByName(VOICES[language])
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 0, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        samples = np.concatenate(self._pieces).astype(np.float32)
        places = np.arange(0, len(samples), self._rate / RATE)
        return Utterance(np.interp(places, np.arange(len(samples)), samples).astype(np.int16), self._starts)


def samples_of(audio: Audio) -> Samples:
    return np.asarray(audio, dtype=np.float32) / np.float32(32768)


def heuristics() -> Callable[[Audio, str], list[tuple[str, float]]]:
    """Return a function that gives each word and its start, estimated by the engine from token probabilities."""
    context = load_context(pw, MODEL, aligned=False, flash=True)

    def recognise(audio: Audio, language: str) -> list[tuple[str, float]]:
        parameters = pw.whisper_full_default_params(pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        parameters.language, parameters.n_threads = language, 1
        parameters.no_context = parameters.single_segment = parameters.token_timestamps = True
        parameters.print_progress = parameters.print_realtime = parameters.print_timestamps = False
        samples = pad(samples_of(audio))
        assert pw.whisper_full(context, parameters, samples, len(samples)) == 0
        return list(_words(context))

    return recognise


def _words(context: Any) -> Iterator[tuple[str, float]]:
    word, start = b"", 0.0
    for index in range(pw.whisper_full_n_tokens(context, 0)):
        token = pw.whisper_full_get_token_data(context, 0, index)
        if token.id >= pw.whisper_token_eot(context):
            continue
        data = pw.whisper_token_to_bytes(context, token.id)
        if data.startswith(b" ") and word:
            yield word.decode(errors="replace"), start
            word = b""
        if not word:
            start = token.t0 / 100
        word += data
    yield word.decode(errors="replace"), start


def alignment() -> Callable[[Audio, str], list[tuple[str, float]]]:
    """Return a function that gives each word and its start from our adapter's alignment."""
    engine = load(EngineSpec("whisper_cpp", MODEL))

    def recognise(audio: Audio, language: str) -> list[tuple[str, float]]:
        call = Call(samples_of(audio), Options(language, job=JobOptions(words=True)))
        [output] = engine.transcribe([call], threads=1)
        assert isinstance(output, EngineOutput)
        return [(word.word, word.start) for segment in output.segments for word in segment.words]

    return recognise


def run() -> list[Row]:
    voice = Voice()
    methods = {"heuristics": heuristics(), "heads": alignment()}
    rows = []
    for language in VOICES:
        errors_by_method = {name: errors(voice, recognise, language) for name, recognise in methods.items()}
        median = {name: 1000 * statistics.median(values) for name, values in errors_by_method.items()}
        worst = {name: 1000 * float(np.percentile(values, 90)) for name, values in errors_by_method.items()}
        rows.append(
            Row(
                f"error of a word's start, median, {language}",
                f"{median['heads']:.0f} ms",
                f"the engine's token heuristics {median['heuristics']:.0f} ms; 90th percentile {worst['heads']:.0f} "
                f"and {worst['heuristics']:.0f} ms; {len(errors_by_method['heads'])} words",
                "below the heuristics",
            )
        )
    return rows


def errors(voice: Voice, recognise: Callable[[Audio, str], list[tuple[str, float]]], language: str) -> list[float]:
    """Return the absolute errors of word starts in seconds, for sentences recognised without a word error."""
    deviations: list[float] = []
    for text in sentences(language, SENTENCES, seed=17):
        utterance = voice.say(text, language)
        words = recognise(utterance.audio, language)
        if plain("".join(f" {word}" for word, _ in words)) == plain(text) and len(words) == len(utterance.starts):
            deviations += [abs(estimate - true) for (_, estimate), true in zip(words, utterance.starts, strict=True)]
    return deviations
