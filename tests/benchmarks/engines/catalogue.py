"""The rows of the engine table, and the children that measure each."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import worker.engine
from tests.benchmarks.engines import models, programs
from tests.benchmarks.engines.measure import Task
from worker import whisper_builds

PACKAGE = "tests.benchmarks.engines"
QUANTISATIONS = {"whisper_cpp": ("q5_0", "q4_k"), "whisper_cpp_wheel": ("q5_0", "q4_k")}
"""Quantisations measured for an engine; others use the f16 file, which they convert to their own form."""

BEST = {"whisper_cpp": "q4_k", "whisper_cpp_wheel": "q4_k"}


@dataclass(frozen=True, slots=True)
class EngineRow:
    """A row. task: the children for a shape and a number of slots; slots: the numbers that it is measured with."""

    name: str
    task: Callable[[str, int], Task]
    slots: tuple[int, ...]


def rows() -> list[EngineRow]:
    """Return the rows that this machine can measure: every engine of the package `worker.engine`, then its peers."""
    return [*_own(), *_faster_whisper(), *_whisper_cpp()]


def adapters() -> list[str]:
    """Return the names of the engines whose dependencies are installed, as ENGINE takes them.

    Without a build of `make engine`, whisper_cpp is the same as whisper_cpp_wheel and left out.
    """
    found = []
    for module in pkgutil.iter_modules(worker.engine.__path__):
        try:
            loaded = importlib.import_module(f"{worker.engine.__name__}.{module.name}")
        except ImportError as error:
            print(f"{module.name}: not measured, {error}", file=sys.stderr)
            continue
        if hasattr(loaded, "load"):
            found.append(module.name)
    return found if whisper_builds.builds() else [name for name in found if name != "whisper_cpp"]


def services() -> list[tuple[str, str]]:
    """Return engine and quantisation of each service that is measured: the best quantisation of every engine."""
    return [(engine, BEST.get(engine, "f16")) for engine in adapters()]


def _own() -> Iterable[EngineRow]:
    for engine in adapters():
        for quantisation in QUANTISATIONS.get(engine, ("f16",)):
            task = functools.partial(_port_task, engine, quantisation)
            yield EngineRow(f"{engine}, {quantisation}", task, (1, cores()))


def _port_task(engine: str, quantisation: str, shape: str, slots: int) -> Task:
    one = {"engine": engine, "model": str(models.ggml(shape, quantisation)), "threads": 1}
    return Task(Path(sys.executable), f"{PACKAGE}.port_child", (one,) * slots, tuple(_one_core_each(slots)))


def _faster_whisper() -> Iterable[EngineRow]:
    if not models.BENCH_PYTHON.exists():
        print(f"faster-whisper: not measured, {models.BENCH_PYTHON} does not exist", file=sys.stderr)
        return
    for name, batch, beam, shared in (
        *(("one by one", 0, 1, False), ("batch 4", 4, 1, False), ("batch 8", 8, 1, False)),
        *(("all threads per call", 0, 1, True), ("batch 8, all threads per call", 8, 1, True)),
        ("one by one, beam 5", 0, 5, False),
    ):
        task = functools.partial(_faster_task, batch, beam, shared)
        slots = (1,) if beam > 1 else (cores(),) if shared else (1, cores())
        yield EngineRow(f"faster-whisper int8, {name}", task, slots)


def _faster_task(batch: int, beam: int, shared: bool, shape: str, slots: int) -> Task:
    """shared: one call at a time with all threads, instead of as many calls as slots."""
    threads, workers = (slots, 1) if shared else (1, slots)
    one = {"model": str(models.ctranslate2(shape)), "threads": threads, "workers": workers, "copies": slots}
    pinned = tuple(core for (core,) in _one_core_each(slots))
    return Task(models.BENCH_PYTHON, f"{PACKAGE}.faster_child", ({**one, "batch": batch, "beam": beam},), (pinned,))


def _whisper_cpp() -> Iterable[EngineRow]:
    try:
        folder, version = programs.build()
    except programs.ProgramsMissing as error:
        print(f"whisper.cpp's programs: not measured, {error}", file=sys.stderr)
        return
    for program, quantisation in (("whisper-server", "q5_0"), ("whisper-server", "q4_k"), ("whisper-cli", "q4_k")):
        task = functools.partial(_program_task, folder / program, quantisation)
        yield EngineRow(
            f"{program} {version}, {quantisation}", task, (1,) if program == "whisper-cli" else (1, cores())
        )


def _program_task(program: Path, quantisation: str, shape: str, slots: int) -> Task:
    one = {"program": str(program), "model": str(models.ggml(shape, quantisation)), "threads": 1}
    return Task(Path(sys.executable), f"{PACKAGE}.program_child", (one,) * slots, tuple(_one_core_each(slots)))


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _one_core_each(slots: int) -> list[tuple[int, ...]]:
    return [(core,) for core in sorted(os.sched_getaffinity(0))[:slots]]
