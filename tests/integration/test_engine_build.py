"""`make engine` for real: build, trial and conformance, in an environment of its own. `make engine-test` runs it.

It downloads the source and the build tools, and takes two minutes of CPU time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.speech import ROOT

pytestmark = [
    pytest.mark.speech,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not os.environ.get("ENGINE_BUILD"), reason="make engine-test builds the engine"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has the packages of this one, and a build of its own."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = folder / "bin" / "python"
    done = subprocess.run([python, "-m", "deploy.engine.build"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installed: whisper.cpp" in done.stdout
    return python


def test_the_build_passes_the_conformance_suite(python: Path) -> None:
    suite = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/integration/test_engine.py"]
    done = subprocess.run([*suite, "-k", "whisper_cpp"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "whisper_cpp_wheel" not in done.stdout


def test_the_build_has_the_words_of_the_wheel(python: Path, tmp_path: Path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [python, "-m", "internal.cli", "bench", "--json"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["variant"].split()[0]: row for row in map(json.loads, done.stdout.splitlines())}
    assert set(rows) >= {"whisper_cpp", "whisper_cpp_wheel"}
    assert all(row["words_wrong"] == 0 for row in rows.values())
    assert rows["whisper_cpp"]["description"].startswith("whisper_cpp ")
