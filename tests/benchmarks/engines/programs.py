"""whisper.cpp's own programs, compiled for this machine.

The source is the folder WHISPER_CPP_SOURCE, such as a checkout of the newest release. By default it is the copy of
whisper.cpp in the npm package nodejs-whisper, the newest one that a package registry has.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.benchmarks.engines.models import CACHE

PACKAGE = "nodejs-whisper@0.3.1"
INTEGRITY = "ceoilUVraRuR5FnNyXpGQT2auAR48Oc3AQBEmkXnVpSn9iN6yVRzQBFCqVTGWbk6Wdi95NhvwXNzFvuR7erLWw=="
"""SHA-512 of the package, base64."""
INSTRUCTIONS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "bmi2": "BMI2",
    "avx512f": "AVX512",
    "avx512_vbmi": "AVX512_VBMI",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
}
"""CMake options by flag of /proc/cpuinfo. AMX is left out, since virtual machines advertise it without granting it."""


class ProgramsMissing(Exception):
    """The programs cannot be built here."""


@cache
def build() -> tuple[Path, str]:
    """Return the folder of whisper-server and whisper-cli, and their version. Raises ProgramsMissing."""
    tools = ["cmake", "c++"] if os.environ.get("WHISPER_CPP_SOURCE") else ["cmake", "c++", "npm"]
    missing = [name for name in tools if not shutil.which(name)]
    if missing:
        raise ProgramsMissing(f"needs {', '.join(missing)}")
    try:
        source = _source()
        version = _version(source)
        return _compile(source, CACHE / f"whisper.cpp-{version}"), version
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProgramsMissing(str(error)) from error


def _source() -> Path:
    given = os.environ.get("WHISPER_CPP_SOURCE")
    if given:
        return Path(given)
    folder = CACHE / PACKAGE.replace("@", "-")
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as name:
            subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=name, check=True, capture_output=True)
            archive = next(Path(name).glob("*.tgz"))
            digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if digest != INTEGRITY:
                raise ProgramsMissing(f"{PACKAGE} has another checksum: {digest}")
            unpacked = Path(name) / "unpacked"
            unpacked.mkdir()
            subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(unpacked)], check=True)
            unpacked.rename(folder)
    return folder / "package" / "cpp" / "whisper.cpp"


def _version(source: Path) -> str:
    found = re.search(r'project\("whisper.cpp" VERSION ([\d.]+)\)', (source / "CMakeLists.txt").read_text())
    return found[1] if found else "unknown"


def _compile(source: Path, target: Path) -> Path:
    programs = target / "bin"
    if not (programs / "whisper-server").exists():
        options = {"CMAKE_BUILD_TYPE": "Release", "BUILD_SHARED_LIBS": "OFF", "WHISPER_BUILD_TESTS": "OFF"}
        options |= {"GGML_NATIVE": "OFF"} | {f"GGML_{name}": "ON" for name in _instructions()}
        defines = [f"-D{name}={value}" for name, value in options.items()]
        subprocess.run(["cmake", "-S", str(source), "-B", str(target), *defines], check=True, capture_output=True)
        build = ["cmake", "--build", str(target), "--parallel", "--target", "whisper-cli", "whisper-server"]
        subprocess.run(build, check=True, capture_output=True)
    return programs


def _instructions() -> list[str]:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return [option for flag, option in INSTRUCTIONS.items() if flag in present]
