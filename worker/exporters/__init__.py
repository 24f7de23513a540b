"""Export formats, one file each: FORMAT, MEDIA_TYPE and `export(result) -> bytes`. A new file here is a new format."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from core.domain.result import Result


@dataclass(frozen=True, slots=True)
class Exporter:
    format: str
    media_type: str
    export: Callable[[Result], bytes]


@cache
def formats() -> dict[str, Exporter]:
    """Every format by its name, sorted."""
    found = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "FORMAT"):
            found[module.FORMAT] = Exporter(module.FORMAT, module.MEDIA_TYPE, module.export)
    return found
