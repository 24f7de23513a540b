"""Variants of the engine on this machine: each engine of `worker/engine/`, and each build of one that has several."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import worker.engine
from core.errors import SettingsError
from worker import whisper_builds
from worker.engine import adapter, declared_formats, import_adapter
from worker.whisper.openvino_settings import SAFE_ISA
from worker.whisper_builds import Build

AUTO = "auto"
"""Value of ENGINE that selects by trial."""
WHEEL = "whisper_cpp_wheel"
"""The engine that is part of every installation."""
OPTIONAL = {"openvino": ("openvino",)}
"""Distributions that an engine needs besides those of the base installation."""
MAKE_TARGETS = {"openvino": "make openvino", "whisper_cpp": "make engine"}
"""Commands that install a faster variant."""
_CODE = (
    *("engine/*.py", "whisper/*.py", "model_files/**/*.py", "whisper_*.py", "token_segments.py"),
    *("engine_trial.py", "trial_process.py"),
)
"""Files of this package that change what a variant does."""


@dataclass(frozen=True, slots=True)
class Variant:
    """An engine, as ENGINE names it, and its build if it has several."""

    engine: str
    build: str = ""

    def __str__(self) -> str:
        return f"{self.engine} {self.build}".strip()


def installed(engine: str = AUTO) -> list[Variant]:
    """Return the variants of an engine that this machine may run, or of all engines; the wheel's is the last.

    Raises SettingsError if the engine does not exist or is not installed.
    """
    if engine == AUTO:
        return [variant for name in engines() for variant in _variants(name)]
    adapter(engine)
    if "." in engine:
        return [Variant(engine)]
    # without a build that works, the wheel has the same engine
    found = [*_variants(engine), *([Variant(WHEEL)] if engine == "whisper_cpp" else [])]
    if not found:
        raise SettingsError(f"ENGINE: {engine} is not installed; run `{MAKE_TARGETS[engine]}`")
    return found


def model_formats(engine: str = AUTO) -> list[str]:
    """Return the formats of models that the variants of an engine read. Raises SettingsError as `installed` does."""
    return sorted({name for variant in installed(engine) for name in declared_formats(variant.engine)})


def engines() -> list[str]:
    """Return the engines of the package, the wheel's last: the modules with a function `load`."""
    folder = Path(worker.engine.__path__[0])
    names = [module.name for module in pkgutil.iter_modules([str(folder)])]
    found = [name for name in names if "\ndef load(" in (folder / f"{name}.py").read_text()]
    return sorted(found, key=lambda name: (name == WHEEL, name))


def _variants(engine: str) -> list[Variant]:
    if engine in OPTIONAL:  # importing it loads its libraries, which this process does not need
        present = all(importlib.util.find_spec(name) for name in OPTIONAL[engine])
        return [Variant(engine)] if present else []
    builds = getattr(import_adapter(engine), "builds", None)
    return [Variant(engine)] if builds is None else [Variant(engine, build) for build in builds()]


@functools.cache
def describe(variant: Variant) -> str:
    """Return the variant with its version and instruction set."""
    if variant.build:
        build = Build.read(whisper_builds.FOLDER / variant.build)
        details = f"{build.whisper_cpp} ({build.level}, encoder OpenVINO {build.openvino})" if build else variant.build
        return f"{variant.engine} {details}"
    if variant.engine == WHEEL:
        return f"{variant.engine}, pywhispercpp {_version('pywhispercpp')} (avx2)"
    if variant.engine in OPTIONAL:
        return f"{variant.engine} {_version(OPTIONAL[variant.engine][0])} ({_instruction_set()})"
    return f"{variant.engine} {_version(variant.engine)}".strip()


def _instruction_set() -> str:
    """Return the best instruction set that libraries which choose one at run time have here."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    levels = whisper_builds.usable_levels()
    best = levels[0].name if levels else "generic"
    return f"{best}, limited to {limit}" if limit and limit != SAFE_ISA else best


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


@functools.cache
def identity(variant: Variant) -> str:
    """Return a hash of what a trial's result depends on besides the model: processor, packages, build, our code."""
    build = Build.read(whisper_builds.FOLDER / variant.build) if variant.build else None
    parts = [
        whisper_builds.cpu_name(),
        sorted(whisper_builds.cpu_flags()),
        os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        os.uname().release,
        sys.version,
        str(variant),
        asdict(build) if build else None,
        [_version(name) for name in (*OPTIONAL.get(variant.engine, ()), "pywhispercpp", "numpy")],
        _code_hash(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@functools.cache
def _code_hash() -> str:
    digest = hashlib.sha256()
    for path in _code_files():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _code_files() -> Iterator[Path]:
    folder = Path(__file__).parent
    for pattern in _CODE:
        yield from sorted(folder.glob(pattern))


def missing_targets() -> list[str]:
    """Return the commands that would install another variant."""
    present = {variant.engine for variant in installed()}
    return [target for engine, target in MAKE_TARGETS.items() if engine not in present]
