"""whisper.cpp adapter, based on pywhispercpp's low-level module: the build of `make engine`, else that of the wheel.

whisper.cpp encodes a second time if the last timestamp is more than a second before the end of the audio.
`single_segment` avoids this: all tokens are in one segment, which is split here at the timestamp tokens.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.domain.job import AUTO
from core.domain.models import original_of_file
from core.domain.spans import SAMPLE_RATE
from core.domain.transcript import Segment
from core.errors import (
    EngineUnavailableError,
    OutOfMemoryError,
    SttError,
    UnsupportedLanguageError,
    WhisperCrashError,
)
from worker import model_files, whisper_builds
from worker.token_segments import TICK, TOP_LAYERS, Token, split_at_timestamps, to_segments, windows
from worker.transcriber import Call, EngineOutput, EngineSpec, Options, Samples, transcribe_each
from worker.whisper_builds import Build, load_binding

MODEL_FORMATS = ("ggml",)
MIN_SAMPLES = SAMPLE_RATE * 11 // 10
"""Samples to which short audio is padded, since whisper.cpp rejects audio of less than one second."""
FRAME = SAMPLE_RATE // 50
"""Samples per frame of the encoder's output."""
DETECTED_FRAMES = 500
"""Frames from which the language is detected: 10 s. They take 0.3 of the time of a whole window, and the languages are
the same (36 recordings; with 150 frames 6 differ)."""


def builds() -> list[str]:
    """Return the builds that this machine may run, the fastest first."""
    return [build.level for build in whisper_builds.builds()]


def load(spec: EngineSpec) -> WhisperCpp:
    """Load a model in the given build, by default the first one that there is, or else the wheel's.

    Raises OutOfMemoryError, ModelMissingError, ModelFileError, EngineUnavailableError if the build is gone.
    """
    model_files.check(spec.model_path, MODEL_FORMATS)
    if not spec.build:
        return WhisperCpp(spec, next(iter(whisper_builds.builds()), None))
    build = Build.read(whisper_builds.FOLDER / spec.build)
    if build is None:
        raise EngineUnavailableError
    return WhisperCpp(spec, build, whisper_builds.FOLDER / spec.build)


def load_context(pw: Any, path: Path, *, aligned: bool, flash: bool) -> Any:
    """Load a model. aligned: True for token times; flash: fused attention. Raises OutOfMemoryError."""
    parameters = pw.whisper_context_default_params()
    parameters.flash_attn = flash
    if aligned:
        parameters.dtw_token_timestamps = True
        parameters.dtw_aheads_preset = alignment_heads(pw, path.name)
        parameters.dtw_n_top = TOP_LAYERS
    context = pw.whisper_init_from_file_with_params(str(path), parameters)
    if context is None:
        raise OutOfMemoryError("The model {name} could not be loaded.", name=path.name)
    return context


def alignment_heads(pw: Any, file_name: str) -> Any:
    """Return the alignment heads of one of OpenAI's models, or for other models all heads of the last layers."""
    original = original_of_file(file_name)
    preset = original.upper().replace("-", "_").replace(".", "_") if original else "N_TOP_MOST"
    return getattr(pw.whisper_alignment_heads_preset, f"WHISPER_AHEADS_{preset}")


class WhisperCpp:
    """A loaded model in one context, which serves calls with and without word times.

    In the wheel's build, token times exclude fused attention. Its context is therefore loaded again at the first call
    with word times, and only then: it costs the calls without them less than a reload would.
    """

    def __init__(self, spec: EngineSpec, build: Build | None, folder: Path | None = None) -> None:
        """build: None for the wheel's; folder: of the build, if it is not in its place yet."""
        self._path, self._threads = spec.model_path, 1
        self._pw = load_binding(folder or (build.folder if build else None))
        self._aligned = build is not None
        self._context: Any = load_context(self._pw, self._path, aligned=self._aligned, flash=True)
        self._first_timestamp: int = self._pw.whisper_token_beg(self._context)
        self._end_of_text: int = self._pw.whisper_token_eot(self._context)
        if build is not None:
            self._use_encoder()

    def _use_encoder(self) -> None:
        """Let OpenVINO encode if it can; otherwise whisper.cpp does."""
        from worker.whisper_encoder import encoder_for  # loads what the wheel's build does not need

        encoder = encoder_for(self._path)
        if encoder is not None:
            self._pw.whisper_ctx_init_openvino_encoder(self._context, str(encoder), "CPU", "")

    def _align(self) -> None:
        """Load the context for token times."""
        if self._context is not None:
            self._pw.whisper_free(self._context)
        self._context = None  # stays so if there is too little memory
        self._context = load_context(self._pw, self._path, aligned=True, flash=False)
        self._aligned = True

    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        self._threads = threads
        return transcribe_each(calls, self._transcribe)

    def _transcribe(self, samples: Samples, options: Options) -> EngineOutput:
        if self._context is None or (options.job.words and not self._aligned):
            self._align()
        started = time.process_time()
        language, encodes = self._language(samples, options)
        segments: list[Segment] = []
        for first, last in windows(samples):
            encodes += self._run(pad(samples[first:last]), language, options)
            segments += self._segments(options, first / SAMPLE_RATE, last / SAMPLE_RATE)
        return EngineOutput(tuple(segments), language, encodes, time.process_time() - started)

    def _language(self, samples: Samples, options: Options) -> tuple[str, int]:
        """Return the language to use, and the number of encodes spent on its detection."""
        if options.language != AUTO:
            if self._pw.whisper_lang_id(options.language) < 0:
                raise UnsupportedLanguageError
            return options.language, 0
        self._limit_encoder(pad(samples[: DETECTED_FRAMES * FRAME]))
        probabilities = np.zeros(self._pw.whisper_lang_max_id() + 1, dtype=np.float32)
        self._pw.whisper_lang_auto_detect(self._context, 0, self._threads, probabilities)
        return max(options.languages, key=lambda name: float(probabilities[self._pw.whisper_lang_id(name)])), 1

    def _limit_encoder(self, samples: Samples) -> None:
        """Load the samples, and limit the next encode to DETECTED_FRAMES.

        Only `whisper_full` sets this limit. It ends when its first encode is refused.
        """
        parameters = self._pw.whisper_full_default_params(self._pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        parameters.n_threads, parameters.audio_ctx = self._threads, DETECTED_FRAMES
        parameters.print_progress = False
        self._pw.assign_encoder_begin_callback(parameters, lambda *_: False)
        if self._pw.whisper_full(self._context, parameters, samples, len(samples)) != 0:
            raise WhisperCrashError("The engine could not process the audio.")

    def _run(self, samples: Samples, language: str, options: Options) -> int:
        """Run `whisper_full` and return the number of encodes."""
        encodes = 0

        def on_encode(*_: Any) -> bool:
            nonlocal encodes
            encodes += 1
            return True

        parameters = self._parameters(language, options)
        self._pw.assign_encoder_begin_callback(parameters, on_encode)
        status = self._pw.whisper_full(self._context, parameters, samples, len(samples))
        if status != 0:
            raise WhisperCrashError("The engine failed on this recording (status {status}).", status=status)
        return encodes

    def _parameters(self, language: str, options: Options) -> Any:
        parameters = self._pw.whisper_full_default_params(self._pw.whisper_sampling_strategy.WHISPER_SAMPLING_GREEDY)
        parameters.n_threads = self._threads
        parameters.language = language
        parameters.no_context = True
        parameters.single_segment = True
        parameters.token_timestamps = options.job.words
        parameters.temperature = options.job.temperature
        parameters.print_progress = parameters.print_realtime = parameters.print_timestamps = False
        if options.job.prompt:
            parameters.initial_prompt = options.job.prompt
        if options.decoders:
            parameters.greedy = {"best_of": options.decoders}
        return parameters

    def _segments(self, options: Options, offset: float, longest: float) -> Iterator[Segment]:
        """Yield the segments of the last run, whose audio is the chunk's from `offset` to `longest` seconds."""
        for index in range(self._pw.whisper_full_n_segments(self._context)):
            end = self._pw.whisper_full_get_segment_t1(self._context, index) / 100
            split = split_at_timestamps(self._tokens(index), end)
            yield from to_segments(split, offset, longest, words=options.job.words)

    def _tokens(self, segment: int) -> Iterator[Token | float]:
        """Yield text tokens as `Token` and timestamp tokens as seconds."""
        for index in range(self._pw.whisper_full_n_tokens(self._context, segment)):
            token = self._pw.whisper_full_get_token_data(self._context, segment, index)
            if token.id >= self._first_timestamp:
                yield (token.id - self._first_timestamp) * TICK
            elif token.id < self._end_of_text:
                data = self._pw.whisper_token_to_bytes(self._context, token.id)
                yield Token(data, float(token.p), max(token.t_dtw, 0) / 100)


def pad(samples: Samples) -> Samples:
    """Return a contiguous array of at least MIN_SAMPLES."""
    missing = max(MIN_SAMPLES - len(samples), 0)
    return np.ascontiguousarray(np.pad(samples, (0, missing)) if missing else samples, dtype=np.float32)
