"""Trial of a model on the bundled samples, in a child process, since a bad model may crash its engine."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.domain.spans import SAMPLE_RATE
from core.errors import ModelUnusableError, SttError, UnsupportedLanguageError
from worker import bundled_audio, trial_process
from worker.engine import build
from worker.transcriber import Call, EngineSpec, Options
from worker.trial_process import TrialFailed

ROOT = Path(__file__).resolve().parents[2]
RECORDINGS = ROOT / "assets" / "samples"
LANGUAGES = ("en", "vi")
"""Languages of the samples. An installed package has none; then the model has to survive a second of silence."""
TRIAL_SECONDS = 900.0
"""Seconds for loading a model and two samples: five times those of Whisper large on one slow core."""
MIN_CONFIDENCE = 0.3
"""Mean probability of the tokens in at least one sample. Random weights reach 0.01, real models 0.8 and more."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The transcript of a sample. confidence: mean probability of its tokens, 0..1."""

    language: str
    text: str
    confidence: float


def try_model(path: Path, name: str) -> list[Heard]:
    """Transcribe the samples in a child process. name: of the model, for messages. Raises ModelUnusableError."""
    engine = "openvino" if path.is_dir() else "whisper_cpp_wheel"
    task = {"engine": engine, "model": str(path.resolve())}
    try:
        result = asyncio.run(trial_process.run("worker.model_tools.trial", task, TRIAL_SECONDS))
    except TrialFailed as failure:
        raise ModelUnusableError(
            "The engine failed on the model {name}: {reason}.", name=name, reason=failure.reason.rstrip(".")
        ) from failure
    heard = [Heard(**transcript) for transcript in result]
    if heard and not any(sample.text and sample.confidence >= MIN_CONFIDENCE for sample in heard):
        raise ModelUnusableError(
            "The model {name} loads, but does not recognise speech; it heard: {text}",
            name=name,
            text=" / ".join(sample.text or "-" for sample in heard)[:300],
        )
    return heard


# -- in the child ------------------------------------------------------------------------------------------------------
def main(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Transcribe each sample; return the fields of what was heard. Raises SttError, and whatever the engine raises."""
    engine = build(EngineSpec(task["engine"], Path(task["model"])))
    recordings = {language: RECORDINGS / f"hello.{language}.mp3" for language in LANGUAGES}
    present = {language: bundled_audio.decode(path) for language, path in recordings.items() if path.exists()}
    silence = {"en": np.zeros(SAMPLE_RATE, np.float32)}
    heard = []
    for language, samples in (present or silence).items():
        [output] = engine.transcribe([Call(samples, Options(language))], threads=1)
        if isinstance(output, UnsupportedLanguageError):
            continue
        if isinstance(output, SttError):
            raise output
        confidences = [segment.confidence for segment in output.segments]
        text = " ".join(segment.text for segment in output.segments)
        heard.append(Heard(language, text, sum(confidences) / max(len(confidences), 1)))
    return [asdict(sample) for sample in heard] if present else []


if __name__ == "__main__":
    trial_process.main(main)
