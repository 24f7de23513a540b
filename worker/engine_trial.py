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
from worker.memory import process_bytes
from worker.transcriber import Call, Engine, EngineSpec, Options, Samples
from worker.trial_process import TrialFailed

TRIAL_SECONDS = 300.0
"""Seconds that a trial may take."""
REPEATED_BELOW = 3.0
"""CPU seconds below which a run without a limit is repeated, since the first one may include preparations."""
COPIES = 2
"""Copies of the recording that a batch has, if the engine has batches. Full ones take longer and change no choice."""
CLIP_SECONDS = 10
"""Length of the clip whose time to result is measured."""
LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a trial.

    cpu_seconds: of the recording, as one of a batch; first_cpu_seconds: of the first run, alone and with preparations
    such as compiling; elapsed: of the whole trial; audio_seconds: length of the recording; peak_bytes: memory of the
    process; clip_seconds: elapsed time of a 10 s clip with all cores, if asked for; error: the reason if it failed;
    stopped: True if it was ended because another variant is much faster.
    """

    engine: str
    build: str = ""
    text: str = ""
    cpu_seconds: float = 0.0
    first_cpu_seconds: float = 0.0
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
        times = (outcome.cpu_seconds, outcome.first_cpu_seconds, outcome.elapsed, outcome.audio_seconds)
        figures = (*times, outcome.peak_bytes, outcome.batch_size)
        valid = all(isinstance(text, str) for text in texts) and all(type(figure) in (int, float) for figure in figures)
        if not valid or min(figures) < 0:
            raise ValueError("not an outcome")
        return outcome


@dataclass(frozen=True, slots=True)
class Task:
    """The parameters of a trial.

    cpu_limit: CPU seconds of a run, for each copy of the recording, after which the trial is stopped; None for no
    limit. thorough: measure full batches and a clip, which a choice does not need.
    """

    engine: str
    build: str
    model: str
    cpu_limit: float | None = None
    thorough: bool = False


async def try_variant(
    variant: Variant,
    model: Path,
    *,
    seconds: float = TRIAL_SECONDS,
    cpu_limit: float | None = None,
    thorough: bool = False,
) -> Outcome:
    """Run a trial in a child process, which ends with this one. seconds: its time limit; the others as in `Task`."""
    started = time.monotonic()
    task = asdict(Task(variant.engine, variant.build, str(model), cpu_limit, thorough))
    try:
        outcome = Outcome.from_json(json.dumps(await trial_process.run("worker.engine_trial", task, seconds)))
    except TrialFailed as failure:
        stopped = failure.timed_out and (seconds < TRIAL_SECONDS or cpu_limit is not None)
        outcome = Outcome(variant.engine, variant.build, error=str(failure), stopped=stopped)
    except ValueError as failure:
        outcome = Outcome(variant.engine, variant.build, error=str(failure))
    return replace(outcome, elapsed=time.monotonic() - started)


# -- in the child ------------------------------------------------------------------------------------------------------
def main(task: dict[str, Any]) -> dict[str, Any]:
    """Run the trial; return the fields of its outcome. Raises SttError, and whatever the engine raises."""
    return asdict(measure(Task(**task)))


def measure(task: Task) -> Outcome:
    """Load the model and transcribe the recording alone, and in a batch if the engine has batches."""
    audio, model = bundled_audio.decode(sample()[0]), Path(task.model)
    batch_size = int(getattr(import_adapter(task.engine), "BATCH_SIZE", 1))
    engine = build(EngineSpec(task.engine, model, task.build))
    with trial_process.limited(task.cpu_limit):
        text, first = _transcribe(engine, audio, 1)
    cpu_seconds, copies = first, batch_size if task.thorough else min(batch_size, COPIES)
    if batch_size > 1 or first < REPEATED_BELOW or task.cpu_limit is not None:
        with trial_process.limited(task.cpu_limit and task.cpu_limit * copies):
            _, cpu_seconds = _transcribe(engine, audio, copies)
    elapsed = None
    if task.thorough:
        for _ in range(2):  # the first call with another number of threads may compile the model
            started = time.monotonic()
            _transcribe(engine, audio[: CLIP_SECONDS * SAMPLE_RATE], 1, usable_cores())
            elapsed = time.monotonic() - started
    return Outcome(
        *(task.engine, task.build, text, cpu_seconds, first),
        audio_seconds=len(audio) / SAMPLE_RATE,
        peak_bytes=max(_peak_bytes(), process_bytes(task.engine, model) if copies < batch_size else 0),
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
