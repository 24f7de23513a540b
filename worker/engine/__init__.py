"""Engine adapters, which are modules of this package. ENGINE names one, or the dotted name of any other module."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

from core.errors import SettingsError
from worker.transcriber import Engine, EngineSpec


def build(spec: EngineSpec) -> Engine:
    """Load the adapter and its model. Raises SettingsError, ModelMissingError, OutOfMemoryError."""
    engine: Engine = import_adapter(spec.adapter).load(spec)
    return engine


def import_adapter(name: str) -> ModuleType:
    """Import the adapter of this name. Raises SettingsError, and ImportError if one of its libraries is missing."""
    return importlib.import_module(adapter(name))


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


def declared_formats(name: str) -> tuple[str, ...]:
    """Return MODEL_FORMATS of an adapter, by default ggml. Not imported, since its libraries are large.

    Raises SettingsError if the adapter does not exist.
    """
    spec = importlib.util.find_spec(adapter(name))
    assert spec is not None
    source = Path(spec.origin).read_text() if spec.origin else ""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODEL_FORMATS":
            return tuple(ast.literal_eval(node.value))
    return ("ggml",)
