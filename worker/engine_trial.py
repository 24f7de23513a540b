"""Trial of one variant of the engine with one model: it transcribes the bundled recording in a child process.

A processor, or the hypervisor below it, may advertise instructions that it does not execute, and a model may not fit in
memory. Both end the child alone, see `worker/trial_process.py`.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.bundled import sample
from core.domain.spans import SAMPLE_RATE
from core.errors import SttError
from core.machine import usable_cores
from worker import bundled_audio, trial_process
from worker.engine import build, import_adapter
from worker.engine_variants import Variant
from worker.transcriber import Call, Engine, EngineSpec, Options, Samples
from worker.trial_process import TrialFailed

TRIAL_SECONDS = 300.0
"""Seconds that a trial may take."""
REPEATED_BELOW = 3.0
"""CPU seconds below which a run is repeated, since the first one may include preparations."""
CLIP_SECONDS = 10
"""Length of the clip whose time to result is measured."""
LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a trial.

    cpu_seconds: of the recording, as one of a full batch; elapsed: of the whole trial; audio_seconds: length of the
    recording; peak_bytes: memory of the process; clip_seconds: elapsed time of a 10 s clip with all cores, if asked
    for; error: the reason if it failed; stopped: True if it was ended because another variant is much faster.
    """

    engine: str
    build: str = ""
    text: str = ""
    cpu_seconds: float = 0.0
    elapsed: float = 0.0
    audio_seconds: float = 0.0
    peak_bytes: int = 0
    batch_size: int = 1
    clip_seconds: float | None = None
    error: str = ""
    stopped: bool = False

    @property
    def variant(self) -> Variant:
        return Variant(self.engine, self.build)

    @classmethod
    def from_json(cls, data: bytes | str) -> Outcome:
        """Raises ValueError."""
        try:
            outcome = cls(**json.loads(data))
        except TypeError as error:
            raise ValueError(str(error)) from error
        texts = (outcome.engine, outcome.build, outcome.text, outcome.error)
        figures = (outcome.cpu_seconds, outcome.elapsed, outcome.audio_seconds, outcome.peak_bytes, outcome.batch_size)
        valid = all(isinstance(text, str) for text in texts) and all(type(figure) in (int, float) for figure in figures)
        if not valid or min(figures) < 0:
            raise ValueError("not an outcome")
        return outcome


async def try_variant(variant: Variant, model: Path, *, seconds: float = TRIAL_SECONDS, clip: bool = False) -> Outcome:
    """Run a trial in a child process, which ends with this one. seconds: its time limit; clip: measure a clip too."""
    started = time.monotonic()
    task = {"engine": variant.engine, "build": variant.build, "model": str(model), "clip": clip}
    try:
        outcome = Outcome.from_json(json.dumps(await trial_process.run("worker.engine_trial", task, seconds)))
    except (TrialFailed, ValueError) as failure:
        outcome = Outcome(variant.engine, variant.build, error=str(failure))
    return replace(outcome, elapsed=time.monotonic() - started)


# -- in the child ------------------------------------------------------------------------------------------------------
def main(task: dict[str, Any]) -> dict[str, Any]:
    """Run the trial; return the fields of its outcome. Raises SttError, and whatever the engine raises."""
    return asdict(measure(Variant(task["engine"], task["build"]), Path(task["model"]), clip=bool(task["clip"])))


def measure(variant: Variant, model: Path, *, clip: bool) -> Outcome:
    """Load the model and transcribe the recording alone, and in a batch if the engine has batches."""
    audio = bundled_audio.decode(sample()[0])
    batch_size = int(getattr(import_adapter(variant.engine), "BATCH_SIZE", 1))
    engine = build(EngineSpec(variant.engine, model, variant.build))
    text, cpu_seconds = _transcribe(engine, audio, 1)
    if batch_size > 1 or cpu_seconds < REPEATED_BELOW:
        _, cpu_seconds = _transcribe(engine, audio, batch_size)
    elapsed = None
    if clip:
        for _ in range(2):  # the first call with another number of threads may compile the model
            started = time.monotonic()
            _transcribe(engine, audio[: CLIP_SECONDS * SAMPLE_RATE], 1, usable_cores())
            elapsed = time.monotonic() - started
    return Outcome(
        variant.engine,
        variant.build,
        text,
        cpu_seconds,
        audio_seconds=len(audio) / SAMPLE_RATE,
        peak_bytes=_peak_bytes(),
        batch_size=batch_size,
        clip_seconds=elapsed,
    )


def _transcribe(engine: Engine, audio: Samples, copies: int, threads: int = 1) -> tuple[str, float]:
    """Transcribe copies of the recording together; return the text of one, and its share of the CPU seconds."""
    started = time.process_time()
    texts = []
    for output in engine.transcribe([Call(audio, Options(LANGUAGE))] * copies, threads):
        if isinstance(output, SttError):
            raise output
        texts.append(" ".join(segment.text for segment in output.segments))
    return texts[-1], (time.process_time() - started) / copies


def _peak_bytes() -> int:
    """Return the largest resident memory of this process; `getrusage` would count the parent's before the exec."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    trial_process.main(main)
