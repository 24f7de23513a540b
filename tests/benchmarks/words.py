"""Word times: the engine's token heuristics beside its alignment heads, against what the speech synthesiser says.

espeak-ng tells when it begins each word, so the truth is known to the millisecond.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import _pywhispercpp as pw
import numpy as np

from tests.benchmarks.table import Row
from tests.speech import MODEL, RATE, Sound, plain, sentences
from worker.engine.whisper_cpp import padded

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
class Spoken:
    """starts: seconds at which each word begins."""

    sound: Sound
    starts: list[float]


class Voice:
    def __init__(self) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("espeak-ng"))
        self._rate = self._library.espeak_Initialize(RETRIEVE, 0, None, 0)
        self._pieces: list[Any] = []
        self._starts: list[float] = []
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._heard)
        self._library.espeak_SetSynthCallback(self._callback)

    def _heard(self, wave: Any, count: int, events: Any) -> int:
        if wave and count:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        place = 0
        while events[place].type:
            if events[place].type == WORD:
                self._starts.append(events[place].audio_position / 1000)
            place += 1
        return 0

    def say(self, text: str, language: str) -> Spoken:
        self._pieces, self._starts = [], []
        self._library.espeak_SetVoiceByName(VOICES[language])
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 0, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        whole = np.concatenate(self._pieces).astype(np.float32)
        places = np.arange(0, len(whole), self._rate / RATE)
        return Spoken(np.interp(places, np.arange(len(whole)), whole).astype(np.int16), self._starts)


def contexts() -> Iterator[tuple[str, Any, bool]]:
    """Name, loaded model, and whether its times are those of the alignment heads."""
    yield "heuristics", pw.whisper_init_from_file_with_params(str(MODEL), pw.whisper_context_default_params()), False
    parameters = pw.whisper_context_default_params()
    parameters.dtw_token_timestamps = True
    parameters.flash_attn = False
    parameters.dtw_aheads_preset = pw.whisper_alignment_heads_preset.WHISPER_AHEADS_N_TOP_MOST
    parameters.dtw_n_top = 2
    yield "alignment heads", pw.whisper_init_from_file_with_params(str(MODEL), parameters), True


def starts(context: Any, sound: Sound, language: str, *, heads: bool) -> tuple[str, list[float]]:
    """What is heard, and when each of its words begins."""
    parameters = pw.whisper_full_default_params(pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
    parameters.language, parameters.n_threads = language, 1
    parameters.no_context = parameters.single_segment = parameters.token_timestamps = True
    parameters.print_progress = parameters.print_realtime = parameters.print_timestamps = False
    samples = padded(sound.astype(np.float32) / 32768)
    assert pw.whisper_full(context, parameters, samples, len(samples)) == 0
    words: list[tuple[bytes, float]] = []
    for index in range(pw.whisper_full_n_tokens(context, 0)):
        token = pw.whisper_full_get_token_data(context, 0, index)
        if token.id >= pw.whisper_token_eot(context):
            continue
        data = pw.whisper_token_to_bytes(context, token.id)
        if data.startswith(b" ") or not words:
            words.append((data, (token.t_dtw if heads else token.t0) / 100))
        else:
            words[-1] = (words[-1][0] + data, words[-1][1])
    return b"".join(word for word, _ in words).decode(errors="replace"), [at for _, at in words]


def run() -> list[Row]:
    voice = Voice()
    found = {name: errors(voice, context, heads) for name, context, heads in contexts()}
    rows = []
    for language in VOICES:
        median = {name: statistics.median(values[language]) for name, values in found.items()}
        worst = {name: float(np.percentile(values[language], 90)) for name, values in found.items()}
        rows.append(
            Row(
                f"error of a word's start, {language}: the engine's token heuristics, median",
                f"{median['heuristics'] * 1000:.0f} ms",
                f"alignment heads {median['alignment heads'] * 1000:.0f} ms; 90th percentile "
                f"{worst['heuristics'] * 1000:.0f} and {worst['alignment heads'] * 1000:.0f} ms; "
                f"{len(found['heuristics'][language])} words",
                "the smaller",
            )
        )
    return rows


def errors(voice: Voice, context: Any, heads: bool) -> dict[str, list[float]]:
    """Seconds between each word's true start and the told one, where every word was heard."""
    found: dict[str, list[float]] = {language: [] for language in VOICES}
    for language in VOICES:
        for text in sentences(language, SENTENCES, seed=17):
            spoken = voice.say(text, language)
            heard, told = starts(context, spoken.sound, language, heads=heads)
            if plain(heard) == plain(text) and len(told) == len(spoken.starts):
                found[language] += [abs(a - b) for a, b in zip(told, spoken.starts, strict=True)]
    return found
