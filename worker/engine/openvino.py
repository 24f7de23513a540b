"""OpenVINO adapter: Whisper's encoder and decoder with 8-bit weights, from wheels alone.

Windows of several calls are decoded together, so that the decoder's weights are read once for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.domain.job import AUTO
from core.domain.spans import SAMPLE_RATE
from core.domain.transcript import Segment
from core.errors import SttError, UnsupportedLanguageError
from worker.model_files import Weights, open_model
from worker.model_files.weights import Array
from worker.token_segments import TICK, Token, split_at_timestamps, to_segments, windows
from worker.transcriber import Call, EngineOutput, EngineSpec
from worker.whisper.decoding import MAX_TOKENS, Transcript, choose
from worker.whisper.features import FRAMES, HOP, log_mel
from worker.whisper.runtime import Runtime
from worker.whisper.vocabulary import Vocabulary
from worker.whisper.word_times import alignment_heads, token_starts

MODEL_FORMATS = ("ctranslate2", "ggml")
BATCH_SIZE = 4
"""Largest number of windows that are decoded together. Eight are hardly faster and take twice the memory."""
MAX_BATCH_BYTES = 320_000_000
"""Bytes of the audio's keys and values in 16 bits, above which fewer windows are decoded together."""
TEMPERATURE_STEP = 0.2
"""Added to the temperature each time a window is decoded again."""
MAX_TEMPERATURE = 1.0


@dataclass(slots=True)
class Window:
    """A window of a call. first, last: its samples; encoded: shape (1, 1500, width)."""

    call: Call
    first: int
    last: int
    encoded: Array
    language: str = ""
    prompt: list[int] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    segments: list[Segment] = field(default_factory=list)


def load(spec: EngineSpec) -> OpenVino:
    """Load a model. Raises OutOfMemoryError, ModelMissingError, ModelFileError."""
    return OpenVino(open_model(spec.model_path, MODEL_FORMATS), spec.model_path)


class OpenVino:
    """A loaded model, compiled for each number of threads in use."""

    def __init__(self, model: Weights, path: Path) -> None:
        self._model = model
        self._vocabulary = Vocabulary(model)
        self._heads = alignment_heads(path.name, model)
        self._runtime = Runtime(model, path)
        self._random = np.random.default_rng()
        header = self._model.header
        row = 2 * 2 * header.text_layers * header.frames * header.text_width
        self._rows = min(max(MAX_BATCH_BYTES // row, 1), BATCH_SIZE)

    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        started = time.process_time()
        self._runtime.use(threads)
        outcomes: list[list[Window] | SttError] = []
        for call in calls:
            try:
                outcomes.append(self._encode(call))
            except SttError as error:
                outcomes.append(error)
        encoded = [window for outcome in outcomes if isinstance(outcome, list) for window in outcome]
        for group in batches(encoded, self._rows):
            self._decode(group)
        seconds = (time.process_time() - started) / max(len(encoded), 1)
        return [
            EngineOutput(
                tuple(segment for window in outcome for segment in window.segments),
                outcome[0].language,
                len(outcome),
                seconds * len(outcome),
            )
            if isinstance(outcome, list)
            else outcome
            for outcome in outcomes
        ]

    def _encode(self, call: Call) -> list[Window]:
        """Encode the windows of a call and set their prompts. Raises UnsupportedLanguageError."""
        options = call.options
        if options.language != AUTO and self._vocabulary.language(options.language) is None:
            raise UnsupportedLanguageError
        encoded: list[Window] = []
        for first, last in windows(call.samples):
            mel = log_mel(call.samples[first:last], self._model.filters)
            encoded.append(Window(call, first, last, self._runtime.encode(mel)))
        language = options.language if options.language != AUTO else self._detect(encoded[0], options.languages)
        longest = self._model.header.text_length - MAX_TOKENS - 4
        prompt = self._vocabulary.prompt(language, options.job.prompt, min(longest, MAX_TOKENS - 1))
        for window in encoded:
            window.language, window.prompt = language, prompt
        return encoded

    def _detect(self, window: Window, languages: Sequence[str]) -> str:
        """Return the most likely of the languages. Raises UnsupportedLanguageError if the model has none of them."""
        tokens = {name: token for name in languages if (token := self._vocabulary.language(name)) is not None}
        if not tokens:
            raise UnsupportedLanguageError
        if len(tokens) == 1 or not self._vocabulary.multilingual:
            return next(iter(tokens))
        [logits] = self._runtime.decoder([window.encoded]).step([[self._vocabulary.start]])
        return max(tokens, key=lambda name: float(logits[tokens[name]]))

    def _decode(self, group: list[Window]) -> None:
        """Decode windows whose prompts have the same length; those that fail again at higher temperatures."""
        for window, transcript in zip(group, self._run(group, None), strict=True):
            temperature = window.call.options.job.temperature
            while transcript.failed(self._vocabulary) and temperature + TEMPERATURE_STEP <= MAX_TEMPERATURE + 1e-6:
                temperature += TEMPERATURE_STEP
                [transcript] = self._run([window], temperature)
            window.transcript = transcript
            if not transcript.is_silence():
                window.segments = list(self._segments(window))

    def _run(self, group: list[Window], temperature: float | None) -> list[Transcript]:
        """Decode the windows together. temperature: None for that of each job."""
        vocabulary = self._vocabulary
        decoder = self._runtime.decoder([window.encoded for window in group])
        transcripts = [Transcript() for _ in group]
        running = list(range(len(group)))
        logits = decoder.step([window.prompt for window in group])
        while True:
            chosen = []
            for row, index in enumerate(running):
                job = group[index].call.options.job
                if not transcripts[index].tokens:
                    transcripts[index].no_speech = probability(logits[row], vocabulary.no_speech)
                heat = job.temperature if temperature is None else temperature
                chosen.append(choose(logits[row], transcripts[index], vocabulary, heat, self._random))
            kept = [row for row, index in enumerate(running) if not transcripts[index].ended]
            if not kept:
                return transcripts
            running = [running[row] for row in kept]
            logits = decoder.step([[chosen[row]] for row in kept], kept)

    def _segments(self, window: Window) -> Iterator[Segment]:
        """Yield the segments of a window, with times in seconds from the first sample of its call."""
        words = window.call.options.job.words
        first, last = window.first / SAMPLE_RATE, window.last / SAMPLE_RATE
        split = split_at_timestamps(self._tokens(window, self._token_ends(window) if words else None), last - first)
        return to_segments(split, first, last, words=words)

    def _tokens(self, window: Window, ends: list[float] | None) -> Iterator[Token | float]:
        """Yield text tokens as `Token` and timestamp tokens as seconds. ends: seconds, by text token."""
        vocabulary, transcript, position = self._vocabulary, window.transcript, 0
        for token, certainty in zip(transcript.tokens, transcript.probabilities, strict=True):
            if token < vocabulary.end_of_text:
                yield Token(vocabulary.bytes(token), certainty, ends[position] if ends else 0.0)
                position += 1
            elif token >= vocabulary.first_timestamp:
                yield (token - vocabulary.first_timestamp) * TICK

    def _token_ends(self, window: Window) -> list[float]:
        """Return the end of each text token in seconds: the start of the next one."""
        vocabulary = self._vocabulary
        text = [token for token in window.transcript.tokens if token < vocabulary.end_of_text]
        if not text:
            return []
        start = [token for token in window.prompt[-3:] if token >= vocabulary.start]
        tokens = [*start, vocabulary.no_timestamps, *text, vocabulary.end_of_text]
        weights = self._runtime.attention(window.encoded, tokens, self._heads)
        frames = min(-(-(window.last - window.first) // (2 * HOP)), FRAMES // 2)
        skipped = len(start) + 1
        return token_starts(weights[:, skipped:], frames)[1:]


def batches(encoded: Sequence[Window], rows: int) -> Iterator[list[Window]]:
    """Yield groups of at most `rows` windows whose prompts have the same length."""
    for length in sorted({len(window.prompt) for window in encoded}):
        group = [window for window in encoded if len(window.prompt) == length]
        for first in range(0, len(group), rows):
            yield group[first : first + rows]


def probability(logits: NDArray[np.float32], token: int) -> float:
    """Return the probability of a token, 0..1."""
    weights = np.exp(logits - logits.max())
    return float(weights[token] / weights.sum())
