"""Builds of whisper.cpp on this machine: those of `make engine`, one for each instruction set, and the wheel's.

A build is loaded only after a child process has transcribed with it, since a processor, or the hypervisor below it,
may advertise instructions that it does not execute.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(sys.prefix) / "share" / "async-stt" / "engine"
"""Folder of the builds, in the Python environment that they were built for."""
DESCRIPTION = "build.json"
TRIAL_SECONDS = 60.0
SPEED_UP = 3
"""Audio per CPU second of a build with AVX-512 by that of the wheel (`docs/performance.md`)."""
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


def _cpu_field(name: str) -> str:
    try:
        lines = CPU_INFO.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == name), "")


@functools.cache
def chosen() -> Build | None:
    """Return the fastest build that works on this machine; None: the wheel's. The first time, trials take seconds."""
    for level in usable_levels():
        build = Build.read(FOLDER / level.name)
        if build is not None and _passes(build):
            return build
    return None


def describe(build: Build | None) -> str:
    """Return the engine's name, version and instruction set, for logs and results."""
    if build is not None:
        return str(build)
    import importlib.metadata  # loads much that an engine process does not need

    version = importlib.metadata.version("pywhispercpp")
    return f"pywhispercpp {version}, wheel for avx2; a build by `make engine` is up to {SPEED_UP} times as fast"


def _passes(build: Build) -> bool:
    """Return True if a child process could transcribe with the build. The result is kept for the processor."""
    key = json.dumps([asdict(build), _cpu_field("model name"), sorted(cpu_flags()), os.uname().release, sys.version])
    result = cache_folder() / f"trial-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    try:
        return result.read_text() == "passed"
    except OSError:
        passed = try_build(build.folder)
    temporary = result.with_suffix(f".{os.getpid()}")
    temporary.write_text("passed" if passed else "failed")
    temporary.replace(result)
    return passed


def try_build(folder: Path) -> bool:
    """Transcribe a recording with the build in a child process; return True if it hears the right words."""
    command = [sys.executable, "-m", "worker.whisper_trial", str(folder)]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, timeout=TRIAL_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


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
