"""Trial of one variant of the engine with one model: it transcribes the bundled recording in a child process.

A processor, or the hypervisor below it, may advertise instructions that it does not execute, and a model may not fit in
memory. Both end the child alone, see `worker/trial_process.py`.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
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


<<<<<<< HEAD
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
    task = Task(variant.engine, variant.build, str(model), cpu_limit, thorough)
    # a file, since the end of a pipe does not come while anything that the child has started holds it
    with tempfile.TemporaryFile() as output:
        return await _run_child(variant, task, output, seconds)


async def _run_child(variant: Variant, task: Task, output: IO[bytes], seconds: float) -> Outcome:
    started = time.monotonic()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker.engine_trial", json.dumps(asdict(task))),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            status = await child.wait()
    except TimeoutError:
        return _failed(variant, f"not done within {seconds:.0f} s", started, stopped=seconds < TRIAL_SECONDS)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with what it has started
        await child.wait()
    if status == -signal.SIGPROF:
        return _failed(variant, f"more than {task.cpu_limit:.1f} s of CPU time", started, stopped=True)
    if status < 0:
        return _failed(variant, f"ended by {signal.Signals(-status).name}", started)
    output.seek(0)
    try:
        return replace(Outcome.from_json(output.read()), elapsed=time.monotonic() - started)
    except ValueError:
        return _failed(variant, f"ended with status {status}", started)


def _failed(variant: Variant, reason: str, started: float, *, stopped: bool = False) -> Outcome:
    return Outcome(variant.engine, variant.build, elapsed=time.monotonic() - started, error=reason, stopped=stopped)


# -- in the child ------------------------------------------------------------------------------------------------------
def main(task: Task) -> Outcome:
    """Run the trial. Faults that do not end the process become the outcome's error."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # the system ends this process before any other
    limit = physical_memory() * 9 // 10
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        return measure(task)
    except SttError as error:
        reason = str(error) or error.code
    except MemoryError:
        reason = "out of memory"
    except Exception as error:  # noqa: BLE001
        reason = repr(error)[:300]
    return Outcome(task.engine, task.build, error=reason)


def _exit_with_parent() -> None:
    os.read(0, 1)  # nothing is sent: this returns when the parent's end is closed
    os._exit(1)
=======
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
>>>>>>> main


def measure(task: Task) -> Outcome:
    """Load the model and transcribe the recording alone, and in a batch if the engine has batches."""
    audio, model = bundled_audio.decode(sample()[0]), Path(task.model)
    batch_size = int(getattr(import_adapter(task.engine), "BATCH_SIZE", 1))
    engine = build(EngineSpec(task.engine, model, task.build))
    with _limited(task.cpu_limit):
        text, first = _transcribe(engine, audio, 1)
    cpu_seconds, copies = first, batch_size if task.thorough else min(batch_size, COPIES)
    if batch_size > 1 or first < REPEATED_BELOW or task.cpu_limit is not None:
        with _limited(task.cpu_limit and task.cpu_limit * copies):
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


@contextlib.contextmanager
def _limited(seconds: float | None) -> Iterator[None]:
    """End the process by SIGPROF once it has used these CPU seconds; native code cannot delay that. None: no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds or 0)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)


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
<<<<<<< HEAD
    results = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries print to standard output
    os.write(results, json.dumps(asdict(main(Task(**json.loads(sys.argv[1]))))).encode())
    os._exit(0)  # a crash while libraries are unloaded is not the engine's
=======
    trial_process.main(main)
>>>>>>> main
