"""Engines: one adapter a file. `ENGINE` names the file, or (an extension of your own) a dotted module."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util

from core.errors import SettingsError
from worker.transcriber import Engine, EngineSpec


def build(spec: EngineSpec) -> Engine:
    """Load the adapter module and its model. Raises SettingsError, ModelMissingError, OutOfMemoryError."""
    engine: Engine = importlib.import_module(adapter(spec.adapter)).load(spec)
    return engine


def adapter(name: str) -> str:
    """The adapter's module. Raises SettingsError where there is none; loads nothing."""
    module = name if "." in name else f"{__name__}.{name}"
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise SettingsError(f"ENGINE: there is no engine called {name!r}")
    return module


def engine_version() -> str:
    """What a result file says of the engine."""
    return f"pywhispercpp {importlib.metadata.version('pywhispercpp')}"
