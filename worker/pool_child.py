"""What runs inside a pool's child process: one engine, kept loaded; no signal, and no life without its parent."""

from __future__ import annotations

import os
import resource
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from worker.engine import build
from worker.transcriber import Engine, EngineOutput, EngineSpec, Options

_loaded: dict[tuple[EngineSpec, tuple[int, int, int] | None], Engine] = {}
"""At most one: the engine of the last call, and the state of the model file that it was loaded from."""


def prepare(alive: Connection, memory_limit: int | None) -> None:
    """First thing in a child. `alive` is a pipe whose other end only the parent holds; memory_limit in bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, args=(alive,), name="parent watch", daemon=True).start()
    if memory_limit is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    _discard_standard_error()


def _exit_with_parent(alive: Connection) -> None:
    alive.poll(None)  # nothing is ever sent: this returns when the parent's end is closed, by whatever death
    os._exit(0)


def _discard_standard_error() -> None:
    """whisper.cpp writes there; a Python callback in its place would be called after the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def process_id() -> int:
    return os.getpid()


def transcribe(spec: EngineSpec, pcm: bytes, options: Options) -> EngineOutput:
    """`pcm`: 16 kHz mono signed 16-bit little endian. Raises what the engine raises."""
    key = (spec, _file_state(spec.model_path))
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = build(spec)
    samples = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768.0
    return _loaded[key].transcribe(samples, options)


def _file_state(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file is replaced: then the engine in memory is another model's."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ino
