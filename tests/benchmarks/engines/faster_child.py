"""faster-whisper with its voice filter, one recording at a time or batched. Runs in .venv-bench."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel

from tests.benchmarks.engines.child import RATE, Item, OwnProcess, main, samples_of


class FasterRunner(OwnProcess):
    """A model with `workers` threads that each transcribe recordings, and `threads` per call.

    Temperature fallback is off, since it can only cost time here.
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self._model = WhisperModel(
            task["model"],
            device="cpu",
            compute_type="int8",
            cpu_threads=int(task["threads"]),
            num_workers=int(task["workers"]),
        )
        self._model.feature_extractor.mel_filters = np.load(Path(task["model"]) / "mel_filters.npy")
        self._workers, self._batch, self._beam = int(task["workers"]), int(task["batch"]), int(task["beam"])
        self._pipeline = BatchedInferencePipeline(self._model)

    def transcribe(self, items: list[Item]) -> list[str]:
        if self._workers == 1:
            return [self._text(item) for item in items]
        with ThreadPoolExecutor(self._workers) as threads:
            return list(threads.map(self._text, items))

    def _text(self, item: Item) -> str:
        options = self._options(item["language"]) | {"vad_filter": True}
        if self._batch:
            segments, _ = self._pipeline.transcribe(item["wav"], batch_size=self._batch, **options)
        else:
            segments, _ = self._model.transcribe(item["wav"], condition_on_previous_text=False, **options)
        return " ".join(segment.text for segment in segments)

    def _options(self, language: str) -> dict[str, Any]:
        return {"language": language, "beam_size": self._beam, "temperature": 0.0, "without_timestamps": False}

    def windows(self, dense: list[Item], sparse: list[Item]) -> tuple[float, float]:
        """Time the calls of CTranslate2 while full windows are transcribed. The spectrogram is not in these figures."""
        encodes, decodes = _Clock(), _Clock()
        model = self._model.model
        self._model.model = _Timed(model, encodes, decodes)
        if self._batch:
            self._windows_in_batch((dense * self._batch)[: self._batch])
        else:
            self.transcribe(dense[:2] + sparse[:2])
        self._model.model = model
        return encodes.seconds / encodes.count, decodes.seconds / decodes.count

    def _windows_in_batch(self, items: list[Item]) -> None:
        pieces = [samples_of(item["wav"]) for item in items]
        ends = np.cumsum([len(piece) for piece in pieces]) / RATE
        clips = [{"start": float(first), "end": float(last)} for first, last in pairwise([0.0, *ends])]
        segments, _ = self._pipeline.transcribe(
            np.concatenate(pieces),
            batch_size=self._batch,
            vad_filter=False,
            clip_timestamps=clips,
            **self._options("vi"),
        )
        list(segments)


class _Clock:
    def __init__(self) -> None:
        self.seconds, self.count = 0.0, 0

    def run(self, call: Callable[[], Any], count: Callable[[Any], int]) -> Any:
        started = time.process_time()
        result = call()
        self.seconds += time.process_time() - started
        self.count += count(result)
        return result


class _Timed:
    """CTranslate2's model, with timed calls."""

    def __init__(self, model: Any, encodes: _Clock, decodes: _Clock) -> None:
        self._model, self._encodes, self._decodes = model, encodes, decodes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, features: Any, **options: Any) -> Any:
        windows = features.shape[0] if len(features.shape) == 3 else 1
        return self._encodes.run(lambda: self._model.encode(features, **options), lambda _: windows)

    def generate(self, *arguments: Any, **options: Any) -> Any:
        def tokens(results: Any) -> int:
            return sum(len(result.sequences_ids[0]) + 1 for result in results)

        return self._decodes.run(lambda: self._model.generate(*arguments, **options), tokens)


if __name__ == "__main__":
    main(FasterRunner)
