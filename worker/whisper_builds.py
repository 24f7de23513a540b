"""Builds of whisper.cpp on this machine: those of `make engine`, one for each instruction set, and the wheel's.

A processor, or the hypervisor below it, may advertise instructions that it does not execute, so that the service uses a
build only after its trial (`worker/engine_choice.py`).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(sys.prefix) / "share" / "async-stt" / "engine"
"""Folder of the builds, in the Python environment that they were built for."""
DESCRIPTION = "build.json"
CPU_INFO = Path("/proc/cpuinfo")
_AVX2 = ("avx2", "fma", "f16c", "bmi2")
_AVX512 = (*_AVX2, "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")


@dataclass(frozen=True, slots=True)
class Level:
    """An instruction set. flags: those of /proc/cpuinfo that it needs; options: of ggml's build, beyond AVX2."""

    name: str
    flags: tuple[str, ...]
    options: tuple[str, ...] = ()


LEVELS = (
    Level(
        "avx512_bf16",
        (*_AVX512, "avx512vbmi", "avx512_vnni", "avx512_bf16"),
        ("GGML_AVX512", "GGML_AVX512_VBMI", "GGML_AVX512_VNNI", "GGML_AVX512_BF16"),
    ),
    Level("avx512_vnni", (*_AVX512, "avx512_vnni"), ("GGML_AVX512", "GGML_AVX512_VNNI")),
    Level("avx2_vnni", (*_AVX2, "avx_vnni"), ("GGML_AVX_VNNI",)),
    Level("avx2", _AVX2),
)
"""Levels, the fastest first."""


@dataclass(frozen=True, slots=True)
class Build:
    """A build in a folder. openvino: the version of its encoder's library; built_at: ISO 8601, in UTC."""

    level: str
    whisper_cpp: str
    openvino: str
    compiler: str
    built_at: str

    @property
    def folder(self) -> Path:
        return FOLDER / self.level

    def __str__(self) -> str:
        return f"whisper.cpp {self.whisper_cpp}, built for {self.level} with OpenVINO {self.openvino}"

    def write(self, folder: Path) -> None:
        (folder / DESCRIPTION).write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Build | None:
        """Return the build in the folder, or None if there is none."""
        try:
            return cls(**json.loads((folder / DESCRIPTION).read_text()))
        except (OSError, ValueError, TypeError):
            return None


def usable_levels() -> list[Level]:
    """Return the levels whose instructions this machine advertises, the fastest first."""
    flags = cpu_flags()
    return [level for level in LEVELS if flags.issuperset(level.flags)]


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets that the machine advertises. Empty on systems other than Linux on x86-64."""
    return frozenset(_cpu_field("flags").split())


def cpu_name() -> str:
    """Return the processor's name, empty if the system does not state it."""
    return _cpu_field("model name")


def _cpu_field(name: str) -> str:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == name), "")


def builds() -> list[Build]:
    """Return the builds whose instructions this machine advertises, the fastest first."""
    found = [Build.read(FOLDER / level.name) for level in usable_levels()]
    return [build for build in found if build is not None]


def load_binding(folder: Path | None) -> Any:
    """Import pywhispercpp's low-level module from a build's folder; None: from the wheel. One a process.

    Threads that wait for each other sleep, unless the environment says otherwise. By default they spin, which takes
    five times the CPU time as soon as another process needs a core.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if folder is None:
        return importlib.import_module("_pywhispercpp")
    [path] = folder.glob("_pywhispercpp.*")
    spec = importlib.util.spec_from_file_location("_pywhispercpp", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cache_folder() -> Path:
    """Return a writable folder for what can be made again."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "async-stt"
    for folder in (home, Path(tempfile.gettempdir()) / f"async-stt-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="async-stt-"))
