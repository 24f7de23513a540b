"""Engines: one adapter a file. `ENGINE` names the file, or (an extension of your own) a dotted module."""

from __future__ import annotations

import importlib
import importlib.metadata

from core.errors import SettingsError
from worker.transcriber import Engine, EngineSpec


def build(spec: EngineSpec) -> Engine:
    """Load the adapter module and its model. Raises SettingsError, ModelMissingError, OutOfMemoryError."""
    name = spec.adapter if "." in spec.adapter else f"{__name__}.{spec.adapter}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise SettingsError(f"ENGINE: there is no engine called {spec.adapter}") from error
    engine: Engine = module.load(spec)
    return engine


def engine_version() -> str:
    """What a result file says of the engine."""
    return f"pywhispercpp {importlib.metadata.version('pywhispercpp')}"
