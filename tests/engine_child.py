"""An engine in a process of its own, since a process can load only one build of whisper.cpp."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from core.errors import SttError
from worker.engine import build
from worker.transcriber import Call, Engine, EngineOutput, EngineSpec

_engines: list[Engine] = []


def _load(spec: EngineSpec) -> None:
    _engines.append(build(spec))


def _transcribe(calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
    return _engines[-1].transcribe(calls, threads)


class ChildEngine:
    """An engine whose calls run in a child process."""

    def __init__(self, spec: EngineSpec) -> None:
        self._process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self._process.submit(_load, spec).result()

    def transcribe(self, calls: Sequence[Call], threads: int) -> list[EngineOutput | SttError]:
        return self._process.submit(_transcribe, calls, threads).result()

    def close(self) -> None:
        self._process.shutdown()
