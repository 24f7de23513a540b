"""Functions that run in an engine process. It keeps one engine loaded, ignores signals, and exits with its parent."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from core.errors import SttError
from worker import model_files
from worker.engine import build, import_adapter
from worker.transcriber import Call, Engine, EngineOutput, EngineSpec, Options, Samples

_loaded: dict[tuple[EngineSpec, tuple[tuple[int, ...], ...] | None], Engine] = {}
"""The engine of the last call, at most one, by its spec and the state of its model file."""


def initialize(alive: Connection, memory_limit: int | None) -> None:
    """Initialise the process. alive: a pipe whose other end only the parent has; memory_limit: bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(alive,), name="watch parent", daemon=True).start()
    if memory_limit is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    _discard_standard_error()


def _exit_with_parent(alive: Connection) -> None:
    alive.poll(None)  # nothing is ever sent, so this returns when the parent's end is closed
    os._exit(0)


def _discard_standard_error() -> None:
    """Discard whisper.cpp's log. A Python log callback would be called after the interpreter has shut down."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    os.close(devnull)


def process_id() -> int:
    return os.getpid()


def batch_size(adapter: str) -> int:
    """Import the engine; return the largest number of calls that it transcribes faster together."""
    return int(getattr(import_adapter(adapter), "BATCH_SIZE", 1))


def transcribe(spec: EngineSpec, calls: Sequence[tuple[bytes, Options]], threads: int) -> list[EngineOutput | SttError]:
    """Transcribe calls, each with 16 kHz mono s16le PCM. Raises the errors of loading the engine."""
    key = (spec, _state(spec.model_path))
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = build(spec)
    return _loaded[key].transcribe([Call(samples(pcm), options) for pcm, options in calls], threads)


def samples(pcm: bytes) -> Samples:
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768.0


def _state(path: Path) -> tuple[tuple[int, ...], ...] | None:
    """Return a value that changes if the model is replaced, so that the engine is loaded again."""
    try:
        return model_files.state(path)
    except OSError:
        return None
