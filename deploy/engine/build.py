"""Builds whisper.cpp with its OpenVINO encoder for this machine's instruction set: `make engine`.

The source is pywhispercpp's source package, verified by the hash in `requirements.lock`. The result is loaded by a
child process that transcribes a recording, and replaces an earlier build only if it hears the right words. Without a
build, or if it stops working, the wheel's is used.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import openvino

from core.bundled import DEMO_MODELS, sample
from deploy.engine import whisper_changes
from worker.engine_choice import judge
from worker.engine_trial import try_variant
from worker.engine_variants import Variant
from worker.whisper_builds import FOLDER, LEVELS, Build, Level, usable_levels

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGE = "pywhispercpp"
COMPILERS = ("c++", "g++", "clang++")
LIBRARIES = ("_pywhispercpp*.so", "libwhisper.so.1", "libggml.so.0", "libggml-base.so.0", "libggml-cpu.so.0")
BASE_OPTIONS = ("GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_BMI2", "GGML_FMA", "GGML_F16C")


class BuildError(Exception):
    """A build that cannot be made, with the remedy."""


def main() -> int:
    """Build the levels and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", nargs="*", choices=[level.name for level in LEVELS], help="default: this machine's")
    parser.add_argument("--untried", action="store_true", help="for images that are built on another machine")
    arguments = parser.parse_args()
    try:
        compiler = find_compiler()
        levels = [level for level in LEVELS if level.name in (arguments.levels or ())] or machine_levels()
        with tempfile.TemporaryDirectory(prefix="engine-") as folder:
            source = prepare_source(Path(folder))
            for level in levels:
                print(f"building whisper.cpp for {level.name} (1 to 2 minutes of CPU time)", flush=True)
                install(compile_level(level, source, Path(folder) / level.name, compiler), untried=arguments.untried)
    except BuildError as error:
        print(f"No engine was built: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(error.stdout[-4000:] if error.stdout else "", f"No engine was built: {error}", file=sys.stderr)
        return 1
    return 0


def find_compiler() -> str:
    """Return the path of a C++ compiler. Raises BuildError."""
    path = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if path is None or shutil.which("make") is None:
        raise BuildError("install a C++ compiler and make (apt-get install g++ make); the wheel works without.")
    return path


def machine_levels() -> list[Level]:
    """Return the fastest level of this machine. Raises BuildError."""
    levels = usable_levels()
    if platform.machine() != "x86_64" or not levels:
        raise BuildError("this needs Linux on x86-64 with AVX2; the wheel works without.")
    return levels[:1]


def prepare_source(folder: Path) -> Path:
    """Download the source package and the build tools, apply our changes, and return the source's folder."""
    tools = folder / "tools"
    pip("install", "--target", str(tools), "--only-binary", ":all:", "-r", str(HERE / "tools.lock"))
    pinned = folder / "source.lock"
    pinned.write_text(pinned_package((ROOT / "requirements.lock").read_text()))
    options = ("--no-deps", "--no-build-isolation", "--no-binary", PACKAGE, "--dest", str(folder))
    # pip runs the package's set-up for its metadata, which needs the tools
    pip("download", *options, "-r", str(pinned), env={**os.environ, "PYTHONPATH": str(tools)})
    [archive] = folder.glob(f"{PACKAGE}-*.tar.gz")
    # by the program, since tarfile has no safe extraction in Python 3.11.2, that of Debian 12
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(folder)], check=True)
    source = archive.with_name(archive.name.removesuffix(".tar.gz"))
    whisper = source / "whisper.cpp" / "src"
    changed = whisper / "whisper.cpp"
    changed.write_text(whisper_changes.apply(changed.read_text()))
    for name in ("whisper-openvino-encoder.cpp", "whisper-openvino-encoder.h"):
        shutil.copy(HERE / name, whisper / "openvino" / name)
    return source


def pip(command: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    call = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--require-hashes"]
    run([*call, *arguments], env=env)


def pinned_package(lock: str) -> str:
    """Return the lines of the lock file that pin the package, with its hashes."""
    match = re.search(rf"^{PACKAGE}==.*?(?=^\S|\Z)", lock, re.MULTILINE | re.DOTALL)
    if match is None:
        raise BuildError(f"requirements.lock does not pin {PACKAGE}.")
    return match.group()


def compile_level(level: Level, source: Path, folder: Path, compiler: str) -> Path:
    """Compile in an environment without variables, with explicit instruction sets, and return the result's folder."""
    cmake = source.parent / "tools" / "cmake" / "data" / "bin" / "cmake"
    package = Path(openvino.__file__).parent
    result = folder / "result"
    result.mkdir(parents=True)
    # the environment may be moved or copied into an image, so that the paths are relative
    libraries = os.path.relpath(package / "libs", FOLDER / level.name)
    definitions = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_COMPILER": compiler,
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": f"$ORIGIN;$ORIGIN/{libraries}",
        "Python_EXECUTABLE": sys.executable,
        "PYTHON_EXECUTABLE": sys.executable,
        "GGML_NATIVE": "OFF",
        "WHISPER_BUILD_EXAMPLES": "OFF",
        "WHISPER_BUILD_TESTS": "OFF",
        "WHISPER_OPENVINO": "ON",
        "OpenVINO_DIR": str(package / "cmake"),
        **dict.fromkeys((*BASE_OPTIONS, *level.options), "ON"),
    }
    clean = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C"}
    options = [f"-D{name}={value}" for name, value in definitions.items()]
    run([str(cmake), "-S", str(source), "-B", str(folder), *options], env=clean)
    jobs = str(len(os.sched_getaffinity(0)))
    run([str(cmake), "--build", str(folder), "--target", "_pywhispercpp", "-j", jobs], env=clean)
    for pattern in LIBRARIES:
        shutil.copy(next(path for path in folder.rglob(pattern) if path.parent != result), result)
    describe(level, source, compiler).write(result)
    return result


def describe(level: Level, source: Path, compiler: str) -> Build:
    match = re.search(r'^project\("whisper\.cpp" VERSION ([\d.]+)\)', _cmake_lists(source), re.MULTILINE)
    version = match.group(1) if match else "of pywhispercpp " + importlib.metadata.version(PACKAGE)
    compiled_by = run([compiler, "--version"]).splitlines()[0]
    library = importlib.metadata.version("openvino")
    return Build(level.name, version, library, compiled_by, datetime.now(UTC).isoformat(timespec="seconds"))


def _cmake_lists(source: Path) -> str:
    return (source / "whisper.cpp" / "CMakeLists.txt").read_text()


def install(result: Path, *, untried: bool) -> None:
    """Replace an earlier build of the level by this one, after a trial in its place. Raises BuildError."""
    build = Build.read(result)
    assert build is not None
    new, old = FOLDER / f".new-{os.getpid()}", FOLDER / f".old-{os.getpid()}"
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copytree(result, new)
    try:
        if not untried and (reason := fault(new)):
            raise BuildError(f"the result does not work on this machine: {reason}. What was used before stays in use.")
        if build.folder.exists():
            build.folder.rename(old)  # running processes keep its files
        new.rename(build.folder)
    finally:
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)
    print(f"installed: {build}", flush=True)


def fault(folder: Path) -> str:
    """Transcribe a recording with a build in a child process; return the reason if its words are not right."""
    model = next(path for path in (folder / "ggml-demo-q5_0.bin" for folder in DEMO_MODELS) if path.exists())
    outcome = asyncio.run(try_variant(Variant("whisper_cpp", str(folder)), model))
    return outcome.error or ("" if judge([outcome], sample()[1]).right else f"it hears {outcome.text!r}")


def run(command: list[str], env: dict[str, str] | None = None) -> str:
    """Run a command and return its output. Raises CalledProcessError with the output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, check=False)
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, command[:3], done.stdout)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
