"""Programs and schemas that deploy/install-deploy-tools.sh installs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "async-stt"


def missing(what: str, by: str = "deploy/install-deploy-tools.sh") -> None:
    """Skip the test, or fail it in CI. by: the command that installs it."""
    message = f"{what} is missing: {by} installs it"
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def program(name: str) -> str:
    """Return the path of a program; skip or fail the test without it."""
    own = CACHE / "bin" / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        missing(name)
    return str(found)


def run(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command with stdout and stderr captured."""
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
