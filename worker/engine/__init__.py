"""Engine adapters. ENGINE is the name of a module of this package, or the dotted name of any other module."""

from __future__ import annotations

import importlib
import importlib.util

from core.errors import SettingsError
from worker import whisper_builds
from worker.transcriber import Engine, EngineSpec


def build(spec: EngineSpec) -> Engine:
    """Load the adapter and its model. Raises SettingsError, ModelMissingError, OutOfMemoryError."""
    engine: Engine = importlib.import_module(adapter(spec.adapter)).load(spec)
    return engine


def adapter(name: str) -> str:
    """Return the adapter's module name without importing it. Raises SettingsError if it does not exist."""
    module = name if "." in name else f"{__name__}.{name}"
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise SettingsError(f"ENGINE: the engine {name!r} does not exist")
    return module


def engine_version() -> str:
    """Return whisper.cpp's version, build and instruction set, for the log and the result file.

    The first call may try a build, which takes seconds.
    """
    return whisper_builds.describe(whisper_builds.chosen())
