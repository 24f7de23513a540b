"""One measurement: children started on pinned cores, commanded together, and their figures added up."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.speech import ROOT, plain, word_error_rate

RUN_SECONDS = 3600.0
"""Seconds after which a measurement is ended."""


@dataclass(frozen=True, slots=True)
class Task:
    """Children to start. python: the interpreter; module: the child's; tasks: one per child; cores: of each child."""

    python: Path
    module: str
    tasks: tuple[dict[str, Any], ...]
    cores: tuple[tuple[int, ...], ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Figures of a group of recordings, over all slots. Seconds; words in the reference, and those wrong."""

    audio: float
    cpu: float
    wall: float
    words: int
    wrong: float


@dataclass(slots=True)
class Measurement:
    """Figures of a row with a number of slots.

    bytes: of all slots; clip_seconds: from the start to the text of a clip, with all cores; error: instead of figures.
    """

    shape: str
    row: str
    slots: int
    groups: dict[str, GroupFigures] = field(default_factory=dict)
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    peak_bytes: int = 0
    pss_bytes: int = 0
    load_seconds: float = 0.0
    clip_seconds: float | None = None
    error: str = ""

    @classmethod
    def from_json(cls, line: str) -> Measurement:
        data = json.loads(line)
        return cls(**data | {"groups": {name: GroupFigures(**group) for name, group in data["groups"].items()}})

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


class ChildFailed(Exception):
    """A child exited or gave no answer."""


def measure(shape: str, row: str, slots: int, task: Task, audio: dict[str, float]) -> Measurement:
    """Run the task's children together. audio: seconds of each group, per slot."""
    result = Measurement(shape, row, slots)
    children = [_Child(task, index) for index in range(len(task.tasks))]
    timer = threading.Timer(RUN_SECONDS, _kill, [children])
    timer.start()
    try:
        result.load_seconds = max(child.answer()["load_seconds"] for child in children)
        for group, seconds in audio.items():
            result.groups[group] = _figures(_together(children, f"go {group}"), seconds * slots)
        if slots == 1:
            costs = children[0].command("windows")
            result.encode_seconds, result.decode_seconds = costs.get("encode_seconds"), costs.get("decode_seconds")
        elif len(children) == 1:
            result.clip_seconds = children[0].command("clip")["clip_seconds"]
        memory = _together(children, "memory")
        result.peak_bytes, result.pss_bytes = (sum(item[name] for item in memory) for name in ("peak", "pss"))
    except ChildFailed as error:
        result.error = str(error)
    finally:
        timer.cancel()
        for child in children:
            child.close()
    return result


def _kill(children: list[_Child]) -> None:
    for child in children:
        child.kill()


def _together(children: list[_Child], command: str) -> list[dict[str, Any]]:
    for child in children:
        child.send(command)
    return [child.answer() for child in children]


def _figures(answers: list[dict[str, Any]], audio: float) -> GroupFigures:
    pairs = [pair for answer in answers for pair in answer["texts"]]
    words = [len(plain(reference).split()) for reference, _ in pairs]
    wrong = sum(
        word_error_rate(reference, text) * count / 100 for (reference, text), count in zip(pairs, words, strict=True)
    )
    cpu, wall = sum(item["cpu_seconds"] for item in answers), max(item["wall_seconds"] for item in answers)
    return GroupFigures(audio, cpu, wall, sum(words), wrong)


class _Child:
    def __init__(self, task: Task, index: int) -> None:
        cores = set(task.cores[index])
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
        self._errors: list[str] = []
        self._process = subprocess.Popen(
            [str(task.python), "-m", task.module, json.dumps(task.tasks[index])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(len(cores))} | task.environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._keep_errors, daemon=True)
        self._reader.start()

    def _keep_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = [*self._errors[-30:], line.strip()]

    def send(self, command: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` reports the exit

    def answer(self) -> dict[str, Any]:
        """Return the next answer. Raises ChildFailed."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildFailed(self._reason())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def command(self, command: str) -> dict[str, Any]:
        self.send(command)
        return self.answer()

    def _reason(self) -> str:
        status = self._process.wait()
        self._reader.join(5)
        last = next((line for line in reversed(self._errors) if line), "")
        return signal.Signals(-status).name if status < 0 else f"status {status}: {last[:160]}"

    def kill(self) -> None:
        """Kill the child and the programs that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(30)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        finally:
            self.kill()
            self._process.wait()
