"""Export formats. Each module with FORMAT, MEDIA_TYPE and `export(result) -> bytes` defines one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from core.domain.result import Result


@dataclass(frozen=True, slots=True)
class Exporter:
    """An export format."""

    format: str
    media_type: str
    export: Callable[[Result], bytes]


@cache
def formats() -> dict[str, Exporter]:
    """Return all formats by name, sorted."""
    exporters = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "FORMAT"):
            exporters[module.FORMAT] = Exporter(module.FORMAT, module.MEDIA_TYPE, module.export)
    return exporters
